"""What a dashboard is made of, and how Grafana's builders make it."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import GraphDrawStyle, LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

#: a dashboard is 24 columns wide
_GRAPH_WIDTH, _GRAPH_HEIGHT = 8, 8
_FIGURE_WIDTH, _FIGURE_HEIGHT = 4, 4

_DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, slots=True)
class Query:
    """``expression`` in PromQL, ``legend`` with labels in ``{{}}``; ``may_be_empty`` where no faults are no data."""

    expression: str
    legend: str = ""
    may_be_empty: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """Values over time. ``unit`` is one of Grafana's ids; ``stacked`` ones add up."""

    title: str
    meaning: str
    unit: str
    queries: tuple[Query, ...]
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of now."""

    title: str
    meaning: str
    unit: str
    query: Query

    @property
    def queries(self) -> tuple[Query, ...]:
        return (self.query,)


Panel = Graph | Figure


@dataclass(frozen=True, slots=True)
class Board:
    """``rows``: a title, and what stands below it."""

    uid: str
    title: str
    meaning: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]

    @property
    def panels(self) -> list[Panel]:
        return [panel for _, panels in self.rows for panel in panels]


def built(board: Board) -> dashboard.Dashboard:
    """The dashboard, with a choice of the data source and of instances."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.meaning)
        .tags(["llmproxy"])
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Instance")
            .datasource(_DATASOURCE)
            .query("label_values(llmproxy_build_info, instance)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    for title, panels in board.rows:
        made = made.with_row(dashboard.Row(title))
        for panel in panels:
            made = made.with_panel(_graph(panel) if isinstance(panel, Graph) else _figure(panel))
    return made


def _graph(graph: Graph) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .title(graph.title)
        .description(graph.meaning)
        .unit(graph.unit)
        .min(0)
        .datasource(_DATASOURCE)
        .span(_GRAPH_WIDTH)
        .height(_GRAPH_HEIGHT)
        .draw_style(GraphDrawStyle.LINE)
        .fill_opacity(30 if graph.stacked else 0)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if graph.stacked:
        made = made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return made.targets(_targets(graph.queries))


def _figure(figure: Figure) -> stat.Panel:
    return (
        stat.Panel()
        .title(figure.title)
        .description(figure.meaning)
        .unit(figure.unit)
        .datasource(_DATASOURCE)
        .span(_FIGURE_WIDTH)
        .height(_FIGURE_HEIGHT)
        .no_value("-")
        .targets([_target(figure.query).instant()])
    )


def _targets(queries: Sequence[Query]) -> list[Builder[Dataquery]]:
    return [_target(query, number) for number, query in enumerate(queries)]


def _target(query: Query, number: int = 0) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expression).legend_format(query.legend)
    return made.ref_id(chr(ord("A") + number))
