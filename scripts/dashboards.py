"""Write charts/jobctl-platform/dashboards/jobs.json: the Grafana dashboard "Jobs" over what workers/metrics.py exports.

python scripts/dashboards.py            write it
python scripts/dashboards.py --check    exit 1 where the file is not what would be written
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FILE = Path(__file__).resolve().parent.parent / "charts" / "jobctl-platform" / "dashboards" / "jobs.json"
SOURCE = common.DataSourceRef(type_val="prometheus", uid="$datasource")
RUN = "namespace, run, kind, task"  # what names a run
REPLICA = f"{RUN}, index"
STATES = {"0": ("starting", "blue"), "1": ("running", "green"), "2": ("finishing", "purple")}
GRID_WIDTH = 24


def of(metric: str, matchers: str = "") -> str:
    """The series of one metric that the dashboard's variables select."""
    return f'jobctl_{metric}{{namespace=~"$namespace", run=~"$run"{matchers}}}'


def by(labels: str, function: str, expression: str) -> str:
    return f"{function} by ({labels}) ({expression})"


def rate(metric: str, matchers: str = "") -> str:
    return f"rate({of(metric, matchers)}[$__rate_interval])"


def slope(metric: str, matchers: str = "") -> str:
    """Of a gauge; below 0 for a moment where an attempt goes on from an older checkpoint."""
    return f"deriv({of(metric, matchers)}[$__rate_interval])"


def total(metric: str, function: Callable[[str, str], str] = of) -> str:
    """One number a run: the ranks of a training group all tell the same step, other indexes have a share each."""
    shared, shares = function(metric, ', kind="train"'), function(metric, ', kind!="train"')
    return f"({by(RUN, 'max', shared)} or {by(RUN, 'sum', by(REPLICA, 'max', shares))})"


def ratio(above: str, below: str) -> str:
    """Of two counters' rates, for each index."""
    return f"{by(REPLICA, 'sum', rate(above))} / {by(REPLICA, 'sum', rate(below))}"


AT_THE_END = f"({of('step')} >= bool {of('steps')}) + 1"
BEFORE_THE_FIRST_STEP = f"{of('memory_high_water_bytes')} * 0"
STATE = f"{by(RUN, 'min', AT_THE_END)} or {by(RUN, 'min', BEFORE_THE_FIRST_STEP)}"

# Columns of the table: (title, unit, expression), one number a run.
COLUMNS = (
    ("State", "short", STATE),
    ("Replicas", "short", by(RUN, "count", by(REPLICA, "max", of("memory_high_water_bytes")))),
    ("Step", "short", total("step")),
    ("Steps", "short", total("steps")),
    ("Progress", "percentunit", f"{total('step')} / {total('steps')}"),
    ("Restarts", "short", by(RUN, "sum", by(REPLICA, "max", of("restarts_total")))),
)

# Graphs, in their order: (title, what it says, unit, [(legend, expression)]).
GRAPHS = (
    (
        "Step",
        "Optimizer steps (train), episodes recorded (collect) or judged (eval).",
        "short",
        [("{{namespace}}/{{run}}", total("step")), ("{{namespace}}/{{run}}: to reach", total("steps"))],
    ),
    (
        "Steps a second",
        "The slope of the step.",
        "short",
        [("{{namespace}}/{{run}}", f"clamp_min({total('step', slope)}, 0)")],
    ),
    (
        "Samples and episodes a second",
        "Training samples used, episodes recorded.",
        "short",
        [
            ("{{namespace}}/{{run}} {{index}}: samples", by(REPLICA, "max", of("samples_per_second"))),
            ("{{namespace}}/{{run}} {{index}}: episodes", by(REPLICA, "max", of("episodes_per_second"))),
        ],
    ),
    (
        "Loss",
        "Mean over the last interval, and on the validation episodes.",
        "short",
        [
            ("{{namespace}}/{{run}}: training", by(RUN, "max", of("loss"))),
            ("{{namespace}}/{{run}}: validation", by(RUN, "max", of("validation_loss"))),
        ],
    ),
    (
        "Data wait",
        "Share of a step's time that it waits for its data.",
        "percentunit",
        [("{{namespace}}/{{run}} {{index}}", ratio("data_wait_seconds_sum", "step_seconds_sum"))],
    ),
    (
        "Time of a step",
        "Mean, the wait for data included.",
        "s",
        [("{{namespace}}/{{run}} {{index}}", ratio("step_seconds_sum", "step_seconds_count"))],
    ),
    (
        "Checkpoint age",
        "Time since the newest checkpoint was published: what a disruption now would lose.",
        "s",
        [("{{namespace}}/{{run}}", by(RUN, "min", of("checkpoint_age_seconds")))],
    ),
    (
        "Episodes by outcome",
        "Recorded by the attempts that run now.",
        "short",
        [("{{namespace}}/{{run}}: {{outcome}}", by(f"{RUN}, outcome", "sum", of("episodes_total")))],
    ),
)


def query(expression: str, legend: str = "") -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(SOURCE).expr(expression).legend_format(legend)


def states() -> list[models.ValueMapping]:
    results = {
        value: models.ValueMappingResult(text=text, color=color, index=int(value))
        for value, (text, color) in STATES.items()
    }
    return [models.ValueMap(options=results)]


def jobs_table() -> table.Panel:
    panel = table.Panel().title("Jobs").datasource(SOURCE).height(8).span(GRID_WIDTH)
    panel.description("Runs whose workers report now. What waits or has ended is told by `jobctl list`.")
    names = {"namespace": "Namespace", "run": "Run", "kind": "Kind", "task": "Task"}
    for position, (title, unit, expression) in enumerate(COLUMNS):
        letter = chr(ord("A") + position)
        panel.with_target(query(expression).instant().format(PromQueryFormat.TABLE).ref_id(letter))
        names[f"Value #{letter}"] = title
        panel.override_by_name(title, [models.DynamicConfigValue(id_val="unit", value=unit)])
    shown = [mapping.to_json() for mapping in states()]
    panel.override_by_name("State", [models.DynamicConfigValue(id_val="mappings", value=shown)])
    order = {name: position for position, name in enumerate(names)}
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    options = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}
    return panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=options))


def state_panel() -> statetimeline.Panel:
    panel = statetimeline.Panel().title("State").datasource(SOURCE).height(6).span(GRID_WIDTH)
    panel.description("A gap: no worker reports, so the job waits, is suspended or has ended.")
    panel.mappings(states()).color_scheme(dashboards.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    return panel.with_target(query(STATE, "{{namespace}}/{{run}}").ref_id("A"))


def graph(title: str, says: str, unit: str, lines: Sequence[tuple[str, str]]) -> timeseries.Panel:
    panel = timeseries.Panel().title(title).description(says).unit(unit).datasource(SOURCE).height(8)
    panel.span(GRID_WIDTH // 2).min(0).show_points(common.VisibilityMode.NEVER)
    panel.legend(
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull"])
    )
    for position, (legend, expression) in enumerate(lines):
        panel.with_target(query(expression, legend).ref_id(chr(ord("A") + position)))
    return panel


def variable(name: str, values: str) -> dashboards.QueryVariable:
    """A choice of several values, all of them at first."""
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    asked = dashboards.QueryVariable(name).label(name.capitalize()).datasource(SOURCE).query(values).definition(values)
    asked.multi(True).include_all(True).all_value(".+").current(everything)
    return asked.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)


def jobs() -> dashboards.Dashboard:
    metric = "jobctl_memory_high_water_bytes"  # the one metric that every worker has from its first moment on
    board = dashboards.Dashboard("Jobs").uid("jobctl-jobs").tags(["jobctl"]).timezone("browser").refresh("10s")
    board.description("Jobs of jobctl: collecting episodes, training on them, evaluating the result.")
    board.time("now-1h", "now").tooltip(models.DashboardCursorSync.CROSSHAIR)
    board.with_variable(dashboards.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    board.with_variable(variable("namespace", f"label_values({metric}, namespace)"))
    board.with_variable(variable("run", f'label_values({metric}{{namespace=~"$namespace"}}, run)'))
    graphs = (graph(*arguments).id(number) for number, arguments in enumerate(GRAPHS, start=3))
    for panel in (jobs_table().id(1), state_panel().id(2), *graphs):
        board.with_panel(panel)
    return board


def text() -> str:
    return JSONEncoder(sort_keys=True, indent=1).encode(jobs().build()) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where the file is stale")
    if parser.parse_args().check:
        if not FILE.exists() or FILE.read_text() != text():
            print(f"{FILE} is stale: run make generate", file=sys.stderr)
            return 1
        return 0
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
