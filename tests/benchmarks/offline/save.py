"""Writes a model as a checkpoint that any engine reads."""

import sys

import torch
from hydra import compose, initialize_config_dir

from tetribench.composition import Composition
from tetribench.config import conf_folder, register
from tetribench.engine.hf.models import load_model
from tetribench.engine.hf.schema import HFEngine


def main(model: str, folder: str) -> None:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        setup = Composition(compose("config", ["+workload=lpld", f"model={model}"]), "").setup()
    engine = setup.engine
    assert isinstance(engine, HFEngine)
    load_model(setup.model, torch.device("cpu"), torch.float32, engine.seed).save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
