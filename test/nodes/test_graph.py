# SPDX-License-Identifier: Apache-2.0
"""The graph of a session and its readers: launch files, entry points, parameter files, remappings."""

import ast
import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from usreg.errors import ConfigError, MissingFileError, WriteError
from usreg.nodes import graph

FILES = ("phantom", "volunteer", "live", "replay")


def spec_of(kind: str, name: str, **options: Any) -> graph.NodeSpec:
    return next(spec for spec in graph.nodes(kind, graph.Options(**options)) if spec.name == name)


def entry_points(top: Path) -> dict[str, str]:
    """Executable and its function, as setup.py declares them."""
    text = (top / "src" / "usreg" / "setup.py").read_text(encoding="utf-8")
    table = re.search(r"^NODES = (\{.*?\n\})", text, re.MULTILINE | re.DOTALL)
    assert table is not None
    return {name: f"usreg.nodes.{module}" for name, module in ast.literal_eval(table[1]).items()}


# --- the description ---


@pytest.mark.parametrize("kind", FILES)
def test_every_node_is_an_entry_point(top: Path, kind: str) -> None:
    specs = graph.nodes(kind, graph.Options(bag="phantom", record="somewhere"))
    assert graph.NodeSpec("simulator").module == entry_points(top)["simulator"]
    declared = entry_points(top)
    assert {spec.name: spec.module for spec in specs}.items() <= declared.items()
    assert ("player" in {spec.name for spec in specs}) == (kind != "live")
    for module in declared.values():
        tree = ast.parse(
            (top / "src" / "usreg" / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
        )
        assert any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body), module


def test_the_phantom_is_described_by_its_session() -> None:
    registration = spec_of("phantom", "registration").parameters
    assert registration["volume"].endswith("bags/phantom/volume.nii.gz") and registration["modality"] == "US"
    assert (len(registration["initial.world_T_ct"]), len(registration["initial.covariance"])) == (16, 36)
    assert spec_of("phantom", "arm_tracking").parameters["arm"].endswith("iiwa7.yaml")
    player = spec_of("phantom", "player")
    assert player.remappings["us/image"] == spec_of("phantom", "us_acquisition").remappings["image_raw"]
    assert not any("truth" in str(topic) for topic in player.parameters["topics"])


def test_one_authority_for_each_edge() -> None:
    """What arm_tracking publishes the player leaves out, and the image's place, which only the bag knows, it plays."""
    owned = spec_of("phantom", "player").parameters["owned_frames"]
    assert {"lbr_link_0", "lbr_link_ee", "us_probe", "ct"} <= set(owned)
    assert "us_image" not in owned and "world" not in owned


@pytest.mark.parametrize("kind", ["phantom", "volunteer", "replay"])
def test_recordings_run_by_their_clock_and_live_by_the_systems(kind: str) -> None:
    played = {s.name: s.parameters["use_sim_time"] for s in graph.nodes(kind, graph.Options(bag="phantom"))}
    assert played.pop("player") is False
    assert all(played.values())
    assert not any(s.parameters["use_sim_time"] for s in graph.nodes("live", graph.Options()))
    assert all(s.parameters["use_sim_time"] for s in graph.nodes("live", graph.Options(use_sim_time=True)))


def test_lockstep_waits_for_the_answers() -> None:
    usual, step = (spec_of("phantom", "player", step=step).parameters for step in (False, True))
    assert "lockstep" not in usual and step["lockstep"] == list(graph.ANSWERS)
    assert set(step["wait_for"]) - set(usual["wait_for"])


def test_live_options_reach_the_nodes() -> None:
    options = {
        "volume": "ct.nii.gz",
        "probe": "linear",
        "image_topic": "scanner/image",
        "joint_topic": "lbr/joint_states",
    }
    acquisition = spec_of("live", "us_acquisition", **options)
    assert acquisition.parameters["probe"] == "linear" and acquisition.remappings == {"image_raw": "scanner/image"}
    assert spec_of("live", "arm_tracking", **options).remappings == {"joint_states": "lbr/joint_states"}
    volumes = {spec_of("live", name, **options).parameters["volume"] for name in ("registration", "fusion")}
    assert volumes == {str(Path("ct.nii.gz").absolute())}


@pytest.mark.parametrize("kind", ["phantom", "live"])
def test_similarity_and_optimizer_reach_registration(kind: str) -> None:
    given = spec_of(kind, "registration", similarity="lc2", optimizer="cmaes").parameters
    assert (given["similarity"], given["optimizer"]) == ("lc2", "cmaes")
    assert not {"similarity", "optimizer"} & spec_of(kind, "registration").parameters.keys()


def test_a_session_may_be_registered_to_its_ct() -> None:
    """The start stays, its covariance is about the other volume's centre; what was chosen for its own volume goes."""
    own, ct = (spec_of("phantom", "registration", register_to=name).parameters for name in ("", "ct"))
    assert ct["volume"].endswith("bags/phantom/ct.nii.gz") and ct["modality"] == "CT"
    assert "contrast_mm" in own["options"] and "labels" not in ct
    assert list(yaml.safe_load(ct["options"])) == ["window"]  # the phantom lies still
    moving = spec_of("volunteer", "registration", register_to="ct").parameters
    assert "options" not in moving  # who breathes does not
    assert ct["initial.world_T_ct"] == own["initial.world_T_ct"]
    before, after = (np.array(v["initial.covariance"]).reshape(6, 6) for v in (own, ct))
    np.testing.assert_allclose(after, after.T)
    np.testing.assert_allclose(after[3:, 3:], before[3:, 3:], atol=1e-12)  # turns are the same about any point
    assert np.linalg.det(after) == pytest.approx(np.linalg.det(before))
    assert spec_of("phantom", "fusion", register_to="ct").parameters["volume"] == ct["volume"]
    with pytest.raises(ConfigError, match=r"'mr'.*\['ct'\]"):
        graph.nodes("phantom", graph.Options(register_to="mr"))


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("replay", {}, ConfigError),
        ("replay", {"bag": "no_such_session"}, MissingFileError),
        ("surgery", {}, ConfigError),
        ("live", {"session": "no_such_session"}, MissingFileError),
    ],
)
def test_what_cannot_be_described_is_refused(kind: str, options: dict[str, str], error: type) -> None:
    with pytest.raises(error):
        graph.nodes(kind, graph.Options(**options))


def test_each_kind_that_ships_plays_the_session_of_its_name(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Volunteer's own folder: a copy of the phantom's under that name, in another share folder."""
    shutil.copytree(top / "bags" / "phantom", tmp_path / "bags" / "volunteer")
    shutil.copytree(top / "config", tmp_path / "config")
    monkeypatch.setattr(graph, "share_dir", lambda: tmp_path)
    player = spec_of("volunteer", "player").parameters
    assert player["bag"] == str(tmp_path / "bags" / "volunteer" / "bag")
    assert graph.session_name("volunteer", graph.Options(bag="mine")) == "mine"
    assert graph.session_name("replay", graph.Options()) == ""
    with pytest.raises(MissingFileError, match="volunteer"):
        graph.nodes("phantom", graph.Options())


def test_a_session_changes_the_filter_in_the_filters_types(top: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(top / "bags" / "phantom", folder)
    changes = {"model": "constant_velocity", "acceleration_mm": [20, 30.5, 40], "max_prediction_s": 1}
    content = yaml.safe_load((folder / "session.yaml").read_text(encoding="utf-8"))
    (folder / "session.yaml").write_text(yaml.safe_dump(content | {"smoothing": changes}), encoding="utf-8")
    found = spec_of("replay", "pose_smoothing", bag=str(folder)).parameters
    values = {k.removeprefix("filter."): v for k, v in found.items() if k.startswith("filter.")}
    assert values == {
        "model": "constant_velocity", "acceleration_mm": [20.0, 30.5, 40.0], "max_prediction_s": 1.0,
    }  # fmt: skip
    assert all(isinstance(v, float) for v in values["acceleration_mm"])
    searching = spec_of("replay", "registration", bag=str(folder)).parameters
    assert {k: v for k, v in searching.items() if k.startswith("filter.")} == {
        f"filter.{k}": v for k, v in values.items()
    }
    nested = {"model": "breathing", "breathing": {"jitter": 0.05}}
    (folder / "session.yaml").write_text(yaml.safe_dump(content | {"smoothing": nested}), encoding="utf-8")
    assert spec_of("replay", "pose_smoothing", bag=str(folder)).parameters["filter.breathing.jitter"] == 0.05
    (folder / "session.yaml").write_text(yaml.safe_dump(content | {"smoothing": {"modl": 1}}), encoding="utf-8")
    with pytest.raises(ConfigError, match="modl"):
        spec_of("replay", "pose_smoothing", bag=str(folder))


def test_a_live_graph_takes_volume_start_and_arm_from_a_session() -> None:
    options = {"session": "phantom", "image_topic": "raw/image", "geometry_topic": "raw/geometry"}
    live, played = (
        {s.name: s for s in graph.nodes(kind, graph.Options(**given))}
        for kind, given in (("live", options), ("phantom", {}))
    )
    assert set(live) == set(played) - {"player"}
    view, shown = live.pop("web_view").parameters, played["web_view"].parameters
    assert view["volume"] == shown["volume"] and view["title"] == "live: phantom"
    assert "session" not in view, "a stream has no bag whose truth could be read"
    for name in live:
        wanted = {k: v for k, v in played[name].parameters.items() if k != "use_sim_time"}
        assert {k: v for k, v in live[name].parameters.items() if k != "use_sim_time"} == wanted
    assert live["us_acquisition"].remappings == played["us_acquisition"].remappings


def test_a_session_made_for_a_stream_has_no_bag_and_is_for_live_alone(top: Path, tmp_path: Path) -> None:
    folder = tmp_path / "streamed"
    shutil.copytree(top / "bags" / "phantom", folder, ignore=shutil.ignore_patterns("bag"))
    content = yaml.safe_load((folder / "session.yaml").read_text(encoding="utf-8"))
    (folder / "session.yaml").write_text(yaml.safe_dump(content | {"bag": ""}), encoding="utf-8")
    registration = spec_of("live", "registration", session=str(folder)).parameters
    assert registration["volume"] == str(folder / "volume.nii.gz") and len(registration["initial.world_T_ct"]) == 16
    with pytest.raises(ConfigError, match="session:=.*to live"):
        graph.nodes("replay", graph.Options(bag=str(folder)))


# --- the view and the recorder that waits for its button ---


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_session_has_the_view(kind: str) -> None:
    names = [spec.name for spec in graph.nodes(kind, graph.Options(bag="phantom"))]
    assert names.count("web_view") == 1 and set(graph.ASIDE) == {"web_view"}
    without = [spec.name for spec in graph.nodes(kind, graph.Options(bag="phantom", view=False))]
    assert set(names) - set(without) == {"web_view", "recorder"}
    assert {"view", "view_host", "view_port", "view_token", "read_only"} <= set(graph.arguments(kind))


def test_the_view_knows_the_session_and_shows_what_fusion_shows() -> None:
    view, fusion = (spec_of("volunteer", name).parameters for name in ("web_view", "fusion"))
    shared = ("volume", "labels", "label_names", "modality", "volume_frame", "overlay.mode")
    assert {k: view[k] for k in shared} == {k: fusion[k] for k in shared}
    assert Path(view["session"]).name == "volunteer" and (view["host"], view["port"]) == ("127.0.0.1", 8090)
    assert spec_of("replay", "web_view", bag="phantom").parameters["title"] == "replay: phantom"
    assert spec_of("phantom", "web_view").parameters["title"] == "phantom"


def test_the_token_is_no_word_of_a_command_line() -> None:
    spec = spec_of("phantom", "web_view", view_host="0.0.0.0", view_token="very-secret-token-of-the-page")
    assert spec.environment == {graph.TOKEN: "very-secret-token-of-the-page"}
    assert not any("very-secret" in word for word in spec.arguments())
    assert not any(s.environment for s in graph.nodes("phantom", graph.Options()))


def test_a_recorder_waits_for_the_page_unless_a_bag_is_named_or_nobody_may_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    waiting = spec_of("phantom", "recorder").parameters
    assert waiting["autostart"] is False and waiting["dated"] is True
    assert waiting["bag"] == str(tmp_path / "recordings" / "usreg")
    assert "autostart" not in spec_of("phantom", "recorder", record="mine").parameters
    for options in ({"read_only": True}, {"view": False}):
        assert "recorder" not in {s.name for s in graph.nodes("phantom", graph.Options(**options))}
    usual, recorded = (spec_of("phantom", "player", record=r).parameters["wait_for"] for r in ("", "mine"))
    assert usual != recorded, "the player waits for a recorder that records, not for one that waits"


def test_texts_become_options() -> None:
    made = graph.with_text(graph.Options(), {"rate": "0.5", "loop": "true", "device": "2", "bag": "phantom"})
    assert (made.rate, made.loop, made.device, made.bag) == (0.5, True, 2, "phantom")
    for wrong in ({"rate": "fast"}, {"loop": "perhaps"}, {"device": "1.5"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            graph.with_text(graph.Options(), wrong)


def test_every_option_is_described() -> None:
    assert all(graph.descriptions().get(name) for kind in FILES for name in graph.arguments(kind))


@pytest.mark.parametrize("processes", ["one", "many"])
def test_a_recording_that_exists_is_refused_before_anything_starts(ros: None, tmp_path: Path, processes: str) -> None:
    from usreg.nodes import runner

    (tmp_path / "mine").mkdir()
    for given in ({"record": tmp_path / "mine"}, {"arguments": [f"record:={tmp_path / 'mine'}"]}):
        with pytest.raises(WriteError, match="mine' exists already"):
            runner.run_session("phantom", processes=processes, say=pytest.fail, **given)


# --- the launch files ---


def test_the_folder_holds_one_file_for_each_kind(top: Path) -> None:
    assert {p.name for p in (top / "launch").glob("*.py")} == {f"{kind}.launch.py" for kind in FILES}
    assert set(FILES) == set(graph.KINDS)


@pytest.mark.parametrize("kind", FILES)
def test_each_launch_file_compiles_and_describes_its_kind(top: Path, kind: str) -> None:
    text = (top / "launch" / f"{kind}.launch.py").read_text(encoding="utf-8")
    tree = compile(text, f"{kind}.launch.py", "exec", ast.PyCF_ONLY_AST)
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "generate_launch_description")
    assert f"describe('{kind}')" in ast.unparse(function)


@pytest.mark.parametrize("kind", FILES)
def test_each_launch_file_under_the_real_launch_system(top: Path, kind: str) -> None:
    """Arguments with descriptions; the actions are the nodes of the graph with its variables."""
    pytest.importorskip("launch_ros", reason="ROS's launch system is not installed here")
    launch = importlib.import_module("launch")
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch_ros.actions import Node

    context = launch.LaunchContext()
    source = PythonLaunchDescriptionSource(str(top / "launch" / f"{kind}.launch.py"))
    description = source.get_launch_description(context)
    arguments = {a.name: a.description for a in description.get_launch_arguments()}
    assert {"namespace", "system", "params_file", "log_level", "rviz", "network", "record"} <= arguments.keys()
    assert all(arguments.values())
    for argument in description.get_launch_arguments():
        argument.execute(context)
    context.launch_configurations["bag"] = "phantom"
    found = [e for entity in description.entities for e in (entity.visit(context) or [])]
    specs = graph.nodes(kind, graph.Options(bag="phantom"))
    assert [e.node_executable for e in found if isinstance(e, Node)] == [spec.name for spec in specs]
    names = {"".join(s.text for s in e.name) for e in found if isinstance(e, launch.actions.SetEnvironmentVariable)}
    assert set(graph.environment()) <= names


# --- the parameter file ---


def test_the_keys_of_the_parameter_file_are_declared_parameters(top: Path, bench: Any) -> None:
    """Every node is made with the file: an unknown key or a value of the wrong type would be refused."""
    file = top / "config" / "nodes.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert {key.rpartition("/")[2] for key in content} <= set(graph.MODULES)
    bag = str(top / "bags" / "phantom" / "bag")
    from usreg.nodes.runner import make_node

    for section, body in content.items():
        name = section.rpartition("/")[2]
        parameters = {"bag": bag} if name == "player" else {}
        node = make_node(graph.NodeSpec(name, parameters, files=(str(file),), namespace=bench.namespace))
        bench.nodes.append(node)
        declared = set(node._parameters)
        assert set(body["ros__parameters"]) <= declared
        for key, value in body["ros__parameters"].items():
            assert node.get_parameter(key).value == value, f"{section} {key} did not reach the node"


@pytest.mark.parametrize("name", sorted(graph.MODULES))
def test_an_unknown_key_stops_a_node(top: Path, ros: None, tmp_path: Path, name: str) -> None:
    from usreg.nodes.runner import make_node

    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({f"/**/{name}": {"ros__parameters": {"rte": 1.0}}}), encoding="utf-8")
    parameters = {"bag": str(top / "bags" / "phantom" / "bag")} if name == "player" else {}
    with pytest.raises(ConfigError, match="rte"):
        make_node(graph.NodeSpec(name, parameters, files=(str(file),), namespace="unknown_key"))


def test_arguments_carry_every_kind_of_value(ros: None) -> None:
    import rclpy

    values = {"text": "a: b # \"c\" 'd'", "number": 1.0, "count": 3, "flag": True, "words": ["1=soft tissue", "x:=y"],
              "numbers": [0.1, -2e-17, 1.0]}  # fmt: skip
    words = graph.NodeSpec("fusion", values, {"us/image": "raw/image"}, (), "left/arm").arguments()
    node = rclpy.create_node(
        "any", cli_args=words, use_global_arguments=False, automatically_declare_parameters_from_overrides=True
    )
    try:
        found = {key: node.get_parameter(key).value for key in values}
        assert {k: list(v) if hasattr(v, "typecode") else v for k, v in found.items()} == values
        assert node.get_fully_qualified_name() == "/left/arm/fusion"
        assert node.resolve_topic_name("us/image") == "/left/arm/raw/image"
    finally:
        node.destroy_node()


def test_the_graph_needs_no_ros() -> None:
    """Launch files read it before anything of ROS's client library is there."""
    import subprocess

    code = (
        "import sys; import usreg.nodes.graph as g; g.nodes('phantom', g.Options()); sys.exit('rclpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_kind_chooses_what_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(graph.CHOICES, "volunteer", {"system": "deep_s2v", "overlay": "vessels"})
    own = spec_of("volunteer", "registration").parameters
    assert own["system"] == "deep_s2v"
    engine = yaml.safe_load(own["options"])["refine"]  # what the session was tuned to is how the networks are judged
    assert engine["similarity"] == "lncc" and engine["gate"]["min_overlap"] == 0.15
    assert spec_of("volunteer", "fusion").parameters["overlay.mode"] == "vessels"
    back = spec_of("volunteer", "registration", system="intensity").parameters
    assert back["system"] == "intensity" and yaml.safe_load(back["options"]) == engine
    assert spec_of("volunteer", "registration", register_to="ct").parameters["system"] == "intensity"
    assert spec_of("volunteer", "registration", bag="phantom").parameters["system"] == "intensity"
    assert spec_of("replay", "registration", bag="volunteer").parameters["system"] == "intensity"
    assert "overlay.mode" not in spec_of("phantom", "fusion").parameters
    paper = spec_of("volunteer", "registration", mode="paper", weights="mine.safetensors").parameters
    assert paper["mode"] == "paper" and not {"mode", "weights"} & own.keys()
    assert Path(paper["weights"]).is_absolute() and Path(paper["weights"]).name == "mine.safetensors"
