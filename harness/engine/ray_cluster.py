"""A session on a Ray cluster, and tasks on its nodes.

Only this module and `ray_tune`, the Tune driver, import Ray.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness import overlay, registry
from harness.engine import ray_head
from harness.engine import slots as layouts
from harness.system import cores
from harness.system.signals import shielded
from harness.types import HarnessError, Json


@contextlib.contextmanager
def cluster(address: str | None, labels: Mapping[str, str] | None = None) -> Iterator[Json]:
    """Open a Ray session on the cluster at `address` or RAY_ADDRESS (`auto` or host:port), else on a private cluster:
    loopback only, no dashboard, in a folder that is removed afterwards (`ray_head.private_cluster`).

    Yields the resources of nodes with `labels` (`slots.resources`). Raises HarnessError without cluster or such a node,
    and if this process already has a session.
    """
    if ray.is_initialized():
        raise HarnessError(
            "Ray already runs in this Python process, and a bench opens its own session: call ray.shutdown() first."
        )
    with contextlib.ExitStack() as stack:
        if address := ray_head.address_of(address):
            stack.enter_context(ray_head.environment({"RAY_ADDRESS": None}))  # Ray prefers it to "auto", unchecked
            _start(address, {"address": address})
        else:
            options = stack.enter_context(ray_head.private_cluster())
            stack.enter_context(_on_loopback())
            options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            if (usable := cores.usable()) != os.cpu_count():
                options["num_cpus"] = usable  # Ray itself sees a limit of time, but no set of cores
            _start(None, {"address": "local"} | options)
        stack.callback(ray.shutdown)
        ray_head.watch(ray.get_runtime_context().gcs_address, ray.is_initialized)
        yield layouts.resources(ray.nodes(), labels)


def _start(address: str | None, options: Json) -> None:
    _reset_tokens()
    try:
        with shielded():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **options)
    except Exception as error:  # of many types; a bare Exception after 30 s on an overloaded machine
        ray.shutdown()
        message = (str(error).splitlines() or [type(error).__name__])[0]
        if not address:
            raise HarnessError(f"Ray does not start on this machine: {message}") from error
        tokens = "" if "RAY_AUTH_MODE" in os.environ else " (if it requires a token: set RAY_AUTH_MODE=token)"
        raise HarnessError(f"No Ray cluster at {address}: {message}{tokens}") from error


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Apply LOOPBACK of `ray_head.private_cluster` to Ray in this process, which has already read the environment."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _reset_tokens() -> None:
    """Have Ray read its token and token mode from the environment again; it caches both."""
    with contextlib.suppress(ImportError, AttributeError):  # private in Ray
        raylet: Any = importlib.import_module("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def resources_of(node_id: str) -> dict[str, float]:
    """Ray resources of a node; empty if the node is gone."""
    return next((node["Resources"] for node in ray.nodes() if node["NodeID"] == node_id), {})


def on_gpu(function: Callable[..., Any], *arguments: Any, labels: Mapping[str, str], timeout: float | None) -> Any:
    """Run a function on one GPU of the cluster, on a node with `labels`, and return its result.

    Function, arguments and result are pickled. The process ends with the task, so the GPU is empty afterwards. Raises
    what the function raises, TimeoutError after `timeout` seconds (None: never).
    """
    counts = [float(node["Resources"].get("GPU", 0)) for node in layouts.selected(ray.nodes(), labels)]
    options = {"num_cpus": 0, "num_gpus": min(1.0, max(counts, default=1.0)), "label_selector": dict(labels)}
    (result,) = _results([_task(function, **options).remote(*arguments)], timeout)
    return result


def on_gpu_nodes(
    function: Callable[[], Any], *, labels: Mapping[str, str], timeout: float, share: float = 1.0
) -> list[Any]:
    """Run a function with a share of the GPUs (1: with all) of each node that has any, among the nodes with `labels`,
    and return the results.

    Raises as `on_gpu`.
    """
    tasks = []
    for node in layouts.selected(ray.nodes(), labels):
        if gpus := float(node["Resources"].get("GPU", 0)):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            given = gpus if share == 1 else min(gpus, share)
            tasks.append(_task(function, num_cpus=0, num_gpus=given, scheduling_strategy=there).remote())
    return _results(tasks, timeout)


def _task(function: Callable[..., Any], **options: Any) -> Any:
    components = overlay.current()

    def run(*arguments: Any) -> Any:
        registry.use(components)
        return function(*arguments)

    return ray.remote(max_retries=0, max_calls=1, **options)(run)


def _results(tasks: list[Any], timeout: float | None) -> list[Any]:
    try:
        return ray.get(tasks, timeout=timeout)
    except GetTimeoutError:
        for task in tasks:
            ray.cancel(task, force=True)
        raise TimeoutError(f"no answer from the cluster's GPUs within {timeout:g} s") from None
