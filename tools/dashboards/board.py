"""What all dashboards are made of: one data source, variables, links, and panels that say what they show.

A dashboard is a list of rows of panels; places and ids follow from the order, so that making it again gives the same
file. Queries name the data source by a variable whose value is the provisioned uid: whoever has another Prometheus
picks that on the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    text,
    timeseries,
)
from grafana_foundation_sdk.models import common as model
from grafana_foundation_sdk.models import dashboard as dash
from grafana_foundation_sdk.models import prometheus as query_model
from grafana_foundation_sdk.models import text as text_model

DATASOURCE_UID = "neurogate-prometheus"
TAG = "neurogate"
WIDTH = 24

TOKENS_PER_SECOND = "suffix:tok/s"
REQUESTS_PER_SECOND = "reqps"
EVENTS_PER_SECOND = "eps"
EVENTS_PER_MINUTE = "suffix:/min"
SECONDS = "s"
SHARE = "percentunit"
COUNT = "short"
TOKENS = "suffix:tokens"

_SOURCE = dash.DataSourceRef(type_val="prometheus", uid="${datasource}")
_REFRESH_ON_TIME = dash.VariableRefresh.ON_TIME_RANGE_CHANGED


@dataclass(frozen=True)
class Query:
    """One query of a panel, and what its series are called."""

    expr: str
    legend: str = ""
    exemplar: bool = False
    """Whether the traces of single requests are drawn as well."""


def events(metric: str, labels: str, by: str = "") -> str:
    """How many there were in the last minute, of what is rare.

    A series of such a counter often begins with its first event. rate() sees no change in that, and shows nothing.
    """
    summed = f"sum by ({by}) " if by else "sum"
    total = f"{summed}({metric}{{{labels}}})"
    # Over a minute: where a single scrape was missed, all events would be new ones.
    before = f"{summed}(last_over_time({metric}{{{labels}}}[1m] offset 1m))"
    return f"clamp_min({total} - ({before} or 0 * {total}), 0)"


@dataclass(frozen=True)
class Limit:
    """From this value on, this colour."""

    value: float
    color: str


@dataclass(frozen=True)
class State:
    """A number's word and colour in a timeline of states."""

    text: str
    color: str


class Panel:
    """A panel of any kind, with its place in the row still open."""

    def __init__(self, builder: Any, *, width: int, height: int) -> None:
        self.builder = builder
        self.width = width
        self.height = height


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    width: int = 8,
    height: int = 8,
    limits: Sequence[Limit] = (),
    stacked: bool = False,
    steps: bool = False,
    colors: Mapping[str, str] | None = None,
    maximum: float | None = None,
    at_least: float | None = None,
) -> Panel:
    """Values over time, on an axis up to `maximum`, or up to `at_least` and further.

    `limits` are dashed lines, `colors` go by the names of series, `steps` is for counts.
    """
    # A table of many series would leave no room for their lines.
    few = len(queries) < 3 and not any("{{" in each.legend for each in queries)
    legend = (
        common.VizLegendOptions()
        .display_mode(model.LegendDisplayMode.TABLE if few else model.LegendDisplayMode.LIST)
        .placement(model.LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
        .calcs(["lastNotNull", "max"] if few else [])
    )
    panel = (
        timeseries.Panel()
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(model.TooltipDisplayMode.MULTI).sort(model.SortOrder.DESCENDING))
        .line_width(1)
        .fill_opacity(35 if stacked else 8)
        .show_points(model.VisibilityMode.NEVER)
        .line_interpolation(model.LineInterpolation.STEP_AFTER if steps else model.LineInterpolation.LINEAR)
        .min(0)
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(model.StackingMode.NORMAL))
    if maximum is not None:
        panel.max(maximum)
    if at_least is not None:
        panel.axis_soft_max(at_least)
    if limits:
        panel.thresholds(_thresholds(limits))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(model.GraphThresholdsStyleMode.DASHED))
    for name, color in (colors or {}).items():
        panel.override_by_name(
            name, [dash.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})]
        )
    return _panel(panel, title, description, queries, unit=unit, width=width, height=height)


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    width: int = 3,
    height: int = 4,
    limits: Sequence[Limit] = (),
    decimals: int | None = None,
) -> Panel:
    """The latest value, large, over its course."""
    panel = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(model.BigValueGraphMode.AREA)
        .color_mode(model.BigValueColorMode.VALUE)
        .thresholds(_thresholds(limits, first="green" if limits else "blue"))
        .no_value("none")
    )
    if decimals is not None:
        panel.decimals(decimals)
    return _panel(panel, title, description, [query], unit=unit, width=width, height=height)


def states(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    values: Mapping[int, State],
    width: int = 12,
    height: int = 7,
) -> Panel:
    """One line for each series, coloured by what its value stands for."""
    mapping = dash.ValueMap(
        options={
            str(value): dash.ValueMappingResult(text=state.text, color=state.color, index=index)
            for index, (value, state) in enumerate(sorted(values.items()))
        }
    )
    panel = (
        statetimeline.Panel()
        .mappings([mapping])
        .merge_values(merge_values=True)
        .show_value(model.VisibilityMode.AUTO)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .legend(
            common.VizLegendOptions()
            .display_mode(model.LegendDisplayMode.LIST)
            .placement(model.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
    )
    return _panel(panel, title, description, queries, unit=COUNT, width=width, height=height)


def bars(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    limits: Sequence[Limit] = (),
    width: int = 8,
    height: int = 8,
    maximum: float | None = None,
) -> Panel:
    """The latest value of each series as a bar."""
    panel = (
        bargauge.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .orientation(model.VizOrientation.HORIZONTAL)
        .display_mode(model.BarGaugeDisplayMode.BASIC)
        .value_mode(model.BarGaugeValueMode.COLOR)
        .name_placement(model.BarGaugeNamePlacement.TOP)
        .sizing(model.BarGaugeSizing.AUTO)
        .thresholds(_thresholds(limits, first="green" if limits else "blue"))
        .min(0)
    )
    if maximum is not None:
        panel.max(maximum)
    return _panel(panel, title, description, [query], unit=unit, width=width, height=height)


def words(title: str, description: str, markdown: str, *, width: int = 24, height: int = 6) -> Panel:
    """A text."""
    panel = text.Panel().title(title).description(description).mode(text_model.TextMode.MARKDOWN).content(markdown)
    return Panel(panel, width=width, height=height)


@dataclass(frozen=True)
class Row:
    """Panels under a heading. `closed` ones ask nothing until they are opened."""

    title: str
    panels: Sequence[Panel]
    closed: bool = False


@dataclass(frozen=True)
class Variable:
    """A choice at the top of the page, of a label's values."""

    name: str
    label: str
    query: str


GATEWAY = Variable("gateway", "Gateway", "label_values(neurogate_gateway_active_requests, instance)")
MODEL = Variable("model", "Model", "label_values(neurogate_gateway_outcomes_total, model)")
WORKER = Variable("worker", "Worker", "label_values(neurogate_gateway_circuit_breaker_state, worker)")
NODE = Variable("node", "Worker process", "label_values(neurogate_worker_active_inferences, instance)")
KEY = Variable("key", "Key", "label_values(neurogate_gateway_key_requests_total, key)")


def build(
    uid: str, title: str, description: str, *, variables: Sequence[Variable], rows: Sequence[Row], docs: str
) -> dash.Dashboard:
    """The whole dashboard. `docs` is where the project's docs are found, for its links."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(dash.DashboardCursorSync.CROSSHAIR)
        .link(_boards())
        .link(_docs("Runbook", f"{docs}/runbook.md"))
        .link(_docs("Metrics", f"{docs}/metrics.md"))
        .with_variable(_source())
        .annotation(_alerts())
    )
    for each in variables:
        board.with_variable(_variable(each))
    _lay_out(board, rows)
    return board.build()


def _lay_out(board: dashboard.Dashboard, rows: Sequence[Row]) -> None:
    top, number_ = 0, 1
    for row in rows:
        head = dashboard.Row(row.title).id(number_).collapsed(row.closed)
        head.grid_pos(dash.GridPos(h=1, w=WIDTH, x=0, y=top))
        number_, top = number_ + 1, top + 1
        left = highest = 0
        placed = []
        start = top
        for panel in row.panels:
            if left + panel.width > WIDTH:
                left, top, highest = 0, top + highest, 0
            panel.builder.id(number_).grid_pos(dash.GridPos(h=panel.height, w=panel.width, x=left, y=top))
            number_, left, highest = number_ + 1, left + panel.width, max(highest, panel.height)
            placed.append(panel.builder)
        if row.closed:
            for builder in placed:
                head.with_panel(builder)
            top = start
        else:
            top += highest
        board.with_row(head)
        if not row.closed:
            for builder in placed:
                board.with_panel(builder)


def _panel(
    panel: Any, title: str, description: str, queries: Sequence[Query], *, unit: str, width: int, height: int
) -> Panel:
    panel.title(title).description(description).unit(unit).datasource(_SOURCE)
    for index, each in enumerate(queries):
        panel.with_target(
            prometheus.Dataquery()
            .expr(each.expr)
            .legend_format(each.legend)
            .ref_id(chr(ord("A") + index))
            .range()
            .exemplar(each.exemplar)
            .editor_mode(query_model.QueryEditorMode.CODE)
            .datasource(_SOURCE)
        )
    return Panel(panel, width=width, height=height)


def _thresholds(limits: Sequence[Limit], *, first: str = "transparent") -> dashboard.ThresholdsConfig:
    steps = [dash.Threshold(value=None, color=first), *(dash.Threshold(each.value, each.color) for each in limits)]
    return dashboard.ThresholdsConfig().mode(dash.ThresholdsMode.ABSOLUTE).steps(steps)


def _source() -> dashboard.DatasourceVariable:
    return (
        dashboard.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(dash.VariableOption(selected=True, text="Prometheus", value=DATASOURCE_UID))
    )


def _variable(of: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(of.name)
        .label(of.label)
        .query({"query": of.query, "refId": of.name})
        .datasource(_SOURCE)
        .refresh(_REFRESH_ON_TIME)
        .sort(dash.VariableSort.NATURAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(dash.VariableOption(selected=True, text="All", value="$__all"))
    )


def _boards() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("NeuroGate").type(dash.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(as_dropdown=False).keep_time(keep_time=True).include_vars(include_vars=True)


def _docs(title: str, url: str) -> dashboard.DashboardLink:
    link = dashboard.DashboardLink(title).type(dash.DashboardLinkType.LINK).url(url)
    return link.icon("doc").target_blank(target_blank=True)


def _alerts() -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name("Alerts")
        .enable(enable=True)
        .icon_color("red")
        .datasource(_SOURCE)
        .expr('max by (alertname, severity) (ALERTS{alertname=~"NeuroGate.*", alertstate="firing"})')
    )
