"""The batchers' figures for Prometheus (``pip install prometheus_client``).

:func:`register` adds them to a registry of prometheus_client; every open batcher of the process is in it, by its name.
With several worker processes, each calls :func:`share`, and any of them answers for all. A Grafana dashboard and alert
rules are in ``docs/monitoring``.

Examples
--------
>>> import inferkit, prometheus_client
>>> registry = prometheus_client.CollectorRegistry()
>>> collector = inferkit.metrics.register(registry)
>>> registry.get_sample_value("inferkit_memory_rss_bytes") > 0
True
"""

from __future__ import annotations

from ._collector import Collector, exposition, register
from ._figures import BUCKETS
from ._shared import Sharing, share

__all__ = ["BUCKETS", "Collector", "Sharing", "exposition", "register", "share"]
