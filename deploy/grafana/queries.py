"""How the dashboards ask: of the chosen instances, over the time between two scrapes or the time shown."""

from deploy.grafana.panels import Query
from llmproxy.wire.endpoints import ENDPOINTS

_NAMES = "|".join(row.name for row in ENDPOINTS)

CHOSEN = 'instance=~"$instance"'
#: requests to models: of the endpoints whose answers are kept, or of these and what is passed through. All else is
#: the proxy's own, such as health checks and the scrapes themselves
KEPT = f'{CHOSEN}, endpoint=~"{_NAMES}"'
ASKED = f'{CHOSEN}, endpoint=~"{_NAMES}|other"'
HITS = f'{CHOSEN}, cache=~"hit|stale"'
LOOKED_UP = f'{CHOSEN}, cache=~"hit|stale|miss|joined|only-if-cached"'


def rate(name: str, labels: str = CHOSEN, by: str = "") -> str:
    """How much a counter grows in a second."""
    return f"sum{f' by ({by})' if by else ''} (rate({name}{{{labels}}}[$__rate_interval]))"


def in_range(name: str) -> str:
    """How much a counter grew in the time that is shown."""
    return f"sum (increase({name}{{{CHOSEN}}}[$__range]))"


def share(part: str, whole: str) -> str:
    """Nothing, where the whole is nothing: 0 / 0 would be shown as NaN."""
    return f"{part} / ({whole} > 0)"


def quantiles(name: str, labels: str = CHOSEN) -> tuple[Query, ...]:
    """Of a histogram: the median and what one in 20, one in 100 exceeds."""
    return tuple(
        Query(f"histogram_quantile({share}, {rate(f'{name}_bucket', labels, 'le')})", f"P{share * 100:g}")
        for share in (0.5, 0.95, 0.99)
    )
