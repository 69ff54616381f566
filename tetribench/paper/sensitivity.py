"""What would have to be true for a claim to hold: one assumption changed at a time."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tetribench.paper.claims import Claim, NotEvaluated
from tetribench.paper.pairs import percent
from tetribench.paper.quantities import mean_of, resource
from tetribench.paper.verdicts import Verdict, measured, printed_text, printed_value, verdict_of
from tetribench.report.finding import Quantity
from tetribench.report.style import INK, Margins, new_figure

AS_IS = "as it is"
ASSUMPTION = "assumption"

FAR = 0.5
"""A number this far from the printed one, or further, has the full colour."""

COLOURS = LinearSegmentedColormap.from_list("far", ["#7fb3dc", "#ffffff", "#eeb07c"])
"""Below the printed number, at it, above it."""


class Sensitivity:
    """Every end-to-end claim under every assumption. A claim that fails as it is may hold under another one."""

    title = "Sensitivity: the claims with one assumption changed"

    def __init__(self, claims: Sequence[Claim]) -> None:
        self._claims = [claim for claim in claims if not isinstance(claim, NotEvaluated) and claim.workload]
        self.quantities: Mapping[str, Quantity] = {
            "ttft_s": mean_of("ttft_engine_s"),
            "jct_s": mean_of("jct_s"),
            "resource_time_s": resource("resource_time_s"),
        }

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A row for each claim and assumption: our number, its bounds and the verdict."""
        found = []
        for claim in self._claims:
            own = rows[rows["workload"] == claim.workload]
            for assumption, cells in own.groupby(ASSUMPTION, sort=False):
                ours = measured(claim, cells)
                verdict = verdict_of(claim, ours).value
                found.append((claim.id, assumption, printed_value(claim), printed_text(claim), *ours, verdict))
        columns = ["claim", ASSUMPTION, "printed", "printed_text", "ours", "low", "high", "verdict"]
        return pd.DataFrame(found, columns=columns)

    def draw(self, table: pd.DataFrame) -> Figure:
        claims, assumptions = (list(dict.fromkeys(table[column])) for column in ("claim", ASSUMPTION))
        by_cell = table.set_index(["claim", ASSUMPTION]).to_dict("index")
        printed = table.drop_duplicates("claim").set_index("claim")["printed_text"]
        subtitle = (
            "Our change in percent; framed: reproduced. Blue is less than printed, orange more; what is printed stands "
            "above"
        )
        margins = Margins(left=2.05, right=0.1, top=1.6, bottom=0.1)
        figure, axes = new_figure(self.title, subtitle, 0.2 * len(assumptions), margins=margins)
        panel = axes[0][0]
        distance = np.zeros((len(assumptions), len(claims)))
        for column, claim in enumerate(claims):
            for line, assumption in enumerate(assumptions):
                one = by_cell[claim, assumption]
                distance[line, column] = 0.0 if np.isnan(one["printed"]) else one["ours"] - one["printed"]
                text = f"{round(100 * one['ours']):+d}" if np.isfinite(one["ours"]) else ""
                panel.text(column, line, text, ha="center", va="center", size=6.5)
                if one["verdict"] == Verdict.reproduced.value:
                    panel.add_patch(
                        Rectangle((column - 0.46, line - 0.44), 0.92, 0.88, fill=False, edgecolor=INK, linewidth=1.1)
                    )
        panel.imshow(distance, cmap=COLOURS, vmin=-FAR, vmax=FAR, aspect="auto")
        panel.set_yticks(range(len(assumptions)), assumptions)
        panel.set_xticks(
            range(len(claims)),
            [f"{printed[claim]}  {claim}".replace("comparable", "same") for claim in claims],
            rotation=90,
            size=6.5,
        )
        panel.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        """For each claim that is not reproduced as it is, the single changes under which it is."""
        sentences = []
        for claim, own in table.groupby("claim", sort=False):
            by_assumption = own.set_index(ASSUMPTION).to_dict("index")
            now = by_assumption[AS_IS]
            if now["verdict"] == Verdict.reproduced.value:
                continue
            helping = own[own["verdict"] == Verdict.reproduced.value]
            named = [f"{row[ASSUMPTION]} ({percent(row['ours'])})" for row in helping.to_dict("records")]
            holds = f"would hold with {', or with '.join(named)}" if named else "holds with none of these changes"
            sentences.append(f"{claim} ({now['printed_text']}, ours {percent(now['ours'])}) {holds}.")
        return sentences
