"""What each figure is judged by: the floor, below which a run fails, and the goal.

All are ratios unless they have a unit.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table of targets. With ``at_most``, less is better and the floor is a ceiling."""

    name: str
    floor: float
    goal: float
    at_most: bool = False
    unit: str = ""

    def holds(self, figure: float) -> bool:
        """Say whether a figure is on the right side of the floor."""
        return figure <= self.floor if self.at_most else figure >= self.floor

    def is_near(self, figure: float, share: float) -> bool:
        """Say whether a figure misses the floor by no more than a share of it."""
        return self.holds(figure * (1 - share) if self.at_most else figure * (1 + share))


WORKER_RABBITMQ = Target("worker, RabbitMQ quorum queue: of a bare HTTP client", 0.58, 1.0)
WORKER_POSTGRES = Target("worker, PostgreSQL queue: of a bare HTTP client", 0.65, 0.85)
WORKER_SLOW_SERVICE = Target("worker, service of 50 ms, 500 in flight: of the client alone", 0.85, 1.3)
WORKER_TEMPLATE = Target("worker, a template of three variables and a filter: of the built-in text", 0.65, 0.8)
WORKER_BUSY = Target("worker, full queue: how much of a core it keeps busy at least", 0.65, 0.95)
DATABASE_TIME = Target("PostgreSQL's processor time for a message", 60, 30, at_most=True, unit="µs")
MESSAGE_LATENCY = Target("half of the highest rate: p99 from due to arrival", 100, 50, at_most=True, unit="ms")
CREATE_LATENCY = Target("API create at half of its highest rate: p99", 40, 5, at_most=True, unit="ms")
WAVE = Target("wave of 100,000, one worker: against as many bare requests", 1.3, 1.05, at_most=True)
DISPATCHER = Target("dispatcher: of aiormq with 500 confirms in flight", 1.2, 2.0)
PLANNER = Target("planner: of a bare INSERT ... SELECT of the same rows", 0.7, 0.9)
PLANNER_OF_TYPES = Target("planner of five types: of a bare INSERT ... SELECT of the same rows", 0.7, 0.9)
EMPTY_TICK = Target("planner's empty tick: many users against few", 2.0, 1.0, at_most=True)
API_CREATE = Target("API create: of a bare aiohttp handler", 1.3, 2.5)
API_READ = Target("API read: of a bare aiohttp handler", 1.65, 2.5)
LONE_REQUEST = Target("lone request: latency against the plain handler", 1.3, 1.0, at_most=True)
LONE_MESSAGE = Target("lone message: latency against the plain path", 1.3, 1.0, at_most=True)
IMPORT = Target("import: of COPY to a stage + INSERT", 0.5, 0.8)
LAG = Target("event loop under full load: p99 of its lag", 50, 15, at_most=True, unit="ms")
SCRAPE = Target("metrics: of a core, for a scrape every 15 s", 0.2, 0.05, at_most=True, unit="%")
BESIDE_RETENTION = Target("worker beside retention: of the worker alone", 0.8, 0.95)
BESIDE_VACUUM = Target("worker beside vacuum: of the worker alone", 0.5, 0.95)
MEMORY = Target("memory of a worker: ten times the messages against once", 1.2, 1.05, at_most=True)

PEER_QUEUES = (
    Target("worker against taskiq", 6, 10),
    Target("worker against celery", 9, 16),
    Target("worker against procrastinate", 12, 25),
    Target("worker against pgqueuer", 2, 4),
    Target("worker against dramatiq", 3, 6),
)
PEER_APIS = (
    Target("API create against fastapi", 2.2, 4),
    Target("API create against litestar", 1.5, 2.5),
    Target("API create against fastify", 1.0, 1.6),
    Target("API read against fastify", 0.9, 1.5),
)
"""The last word of a name is the peer's, as in ``peers/with_fastapi.py``; the second is what an API does."""
