from pathlib import Path

import pytest

import tetribench.engine.native.compiler as compiler
from tetribench.engine.native.compiler import compiled, find_compiler, why_no_compiler

NEEDS_COMPILER = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")


@NEEDS_COMPILER
def test_functions_outlive_the_file_that_they_were_compiled_to(tmp_path: Path) -> None:
    source = tmp_path / "twice.c"
    source.write_text("int twice(int x) { return 2 * x; }")
    assert compiled(source).twice(21) == 42


@NEEDS_COMPILER
def test_the_compilers_complaint_is_quoted(tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text("int broken( {")
    with pytest.raises(RuntimeError, match=r"broken\.c:1"):
        compiled(source)


def test_a_machine_without_a_compiler_says_which_it_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "which", lambda name: None)
    assert why_no_compiler() == "finds no C compiler: none of cc, gcc, clang is on the PATH"
    with pytest.raises(RuntimeError, match=r"^some\.c: finds no C compiler"):
        compiled(Path("some.c"))
