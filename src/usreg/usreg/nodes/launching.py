# SPDX-License-Identifier: Apache-2.0
"""The launch description of a session, read from `graph.py`. Needs ROS's launch system; launch/*.launch.py call it."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteLocal,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription  # type: ignore[attr-defined]  # ../../launch has its name

from ..data.share import share_dir
from . import graph

RETRIES = 3
COMMON = {
    "rviz": "Start RViz with config/usreg.rviz (true, false).",
    "network": "Talk to other machines; default: loopback only (true, false).",
    "respawn": "Start a node again that has ended by an error (true, false); the view always is.",
}


def describe(kind: str) -> LaunchDescription:
    """Arguments and nodes of a session."""
    defaults, texts = graph.Options(), graph.descriptions()
    names = [f.name for f in fields(graph.Options) if f.name in graph.arguments(kind)]
    declared = [_declare(name, getattr(defaults, name), texts[name]) for name in names]
    declared += [_declare(name, False, text) for name, text in COMMON.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=_start, args=[kind, names])])


def _declare(name: str, default: Any, text: str) -> DeclareLaunchArgument:
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    return DeclareLaunchArgument(name, default_value=shown, description=text)


def _start(context: LaunchContext, kind: str, names: list[str]) -> list[Any]:
    given = {name: LaunchConfiguration(name).perform(context) for name in (*names, *COMMON)}
    flags = {name: graph.flag(name, given[name]) for name in COMMON}
    options = graph.with_text(graph.Options(), {name: given[name] for name in names})
    variables = graph.environment(flags["network"]) | graph.threads()
    actions: list[Any] = [SetEnvironmentVariable(name, value) for name, value in variables.items()]
    for spec in graph.nodes(kind, options):
        node = _node(spec, flags["respawn"])
        if spec.name == "player":
            end = EmitEvent(event=Shutdown(reason="the bag has ended"))
            actions.append(RegisterEventHandler(OnProcessExit(target_action=node, on_exit=[end])))
        actions.append(node)
    return actions + ([_rviz(kind != "live")] if flags["rviz"] else [])


def _node(spec: graph.NodeSpec, respawn: bool) -> Node:
    base, *later = spec.files
    return Node(
        package="usreg",
        executable=spec.name,
        name=spec.name,
        namespace=spec.namespace,
        parameters=[base, dict(spec.parameters), *later],
        remappings=list(spec.remappings.items()),
        arguments=["--ros-args", "--log-level", spec.log_level],
        respawn=spec.name in graph.ASIDE or (respawn and spec.name != "player"),
        respawn_delay=1.0,
        additional_env=dict(spec.environment),
        output="screen",
        **_retries(spec.name in graph.ASIDE),
    )


def _retries(few: bool) -> dict[str, Any]:
    """A limit for what is started again by itself; Humble and Iron know none."""
    known = "respawn_max_retries" in inspect.signature(ExecuteLocal.__init__).parameters
    return {"respawn_max_retries": RETRIES} if few and known else {}


def _rviz(simulated: bool) -> Node:
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(share_dir() / "config" / "usreg.rviz")],
        parameters=[{"use_sim_time": simulated}],
        output="log",
    )
