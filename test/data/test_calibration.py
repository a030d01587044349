# SPDX-License-Identifier: Apache-2.0
"""Calibrations: the split of ImageToProbe, YAML and device sets, sectors, latency, and hostile files."""

import logging
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.data.calibration import read_calibration, read_calibration_with_warnings, sector_for, write_calibration
from usreg.data.split import SplitLimits, join, split_image_to_probe
from usreg.errors import CalibrationError, ConfigError, FileFormatError, GeometryError, MissingFileError, UsregError
from usreg.geometry import se3

MATRIX = "0 0.2 0 10  -0.1 0 0 20  0 0 0.15 30  0 0 0 1"  # x = -y of the probe, y = x of the probe
HEAD = '<PlusConfiguration version="2.1"><CoordinateDefinitions>{}</CoordinateDefinitions>{}</PlusConfiguration>'


@pytest.fixture
def make_xml(tmp_path):
    def make(body="", matrix=MATRIX, transforms="", name="set.xml"):
        image = f'<Transform From="Image" To="Probe" Matrix="{matrix}" Error="0.7"/>' if matrix else ""
        path = tmp_path / name
        path.write_text(HEAD.format(image + transforms, body))
        return path

    return make


numbers = st.floats(-2.5, 2.5)


@given(
    twist=st.lists(numbers, min_size=6, max_size=6),
    spacing=st.tuples(st.floats(0.02, 2.0), st.floats(0.02, 2.0)),
    shear_deg=st.floats(-4.99, 4.99),
)
def test_split_inverts_join(twist, spacing, shear_deg):
    pose = se3.exp(torch.tensor(twist, dtype=torch.float64))
    pixel_to_mm = ((spacing[0], math.tan(math.radians(shear_deg)) * spacing[1]), (0.0, spacing[1]))
    split = split_image_to_probe(join(pose, pixel_to_mm))
    torch.testing.assert_close(split.probe_T_image, pose, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.tensor(split.pixel_to_mm), torch.tensor(pixel_to_mm), atol=1e-12, rtol=1e-10)
    assert split.shear_deg == pytest.approx(shear_deg, abs=1e-8)


def test_the_third_column_does_not_count():
    matrix = join(se3.exp(torch.tensor([1.0, 2, 3, 0.1, 0.2, 0.3], dtype=torch.float64)), ((0.1, 0.0), (0.0, 0.1)))
    expected = split_image_to_probe(matrix)
    for third in ([0.0, 0.0, 0.0], [5.0, -3.0, 1.0]):
        changed = matrix.clone()
        changed[:3, 2] = torch.tensor(third, dtype=torch.float64)
        got = split_image_to_probe(changed)
        assert torch.equal(got.probe_T_image, expected.probe_T_image) and got.pixel_to_mm == expected.pixel_to_mm
    z = expected.probe_T_image[:3, 2]
    torch.testing.assert_close(z, torch.linalg.cross(*expected.probe_T_image[:3, :2].T))


def scaled(a=0.1, b=0.0, d=0.1):
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, 0], matrix[0, 1], matrix[1, 1] = a, b, d
    return matrix


def test_shear_beyond_the_limit_is_refused_with_its_numbers():
    for sign in (1, -1):
        b = sign * math.tan(math.radians(5.2)) * 0.1
        with pytest.raises(CalibrationError, match=r"shear -?5\.20 degrees, limit 5") as caught:
            split_image_to_probe(scaled(b=b))
        assert "0.1" in str(caught.value)
        assert split_image_to_probe(scaled(b=b), SplitLimits(max_shear_deg=6)).shear_deg == pytest.approx(sign * 5.2)


@pytest.mark.parametrize("spoil", ["nan", "inf", "flat", "parallel", "row", "metres", "huge"])
def test_matrices_that_map_no_image(spoil):
    matrix = scaled()
    if spoil in ("nan", "inf"):
        matrix[1, 3] = float(spoil)
    matrix[:3, 0] *= {"flat": 0.0, "metres": 1e-3, "huge": 1e4}.get(spoil, 1.0)
    if spoil == "parallel":
        matrix[:3, 1] = matrix[:3, 0]
    if spoil == "row":
        matrix[3, 0] = 0.5
    with pytest.raises(CalibrationError):
        split_image_to_probe(matrix)


def test_limits_are_checked():
    for wrong in (
        {"max_shear_deg": 60},
        {"warn_shear_deg": 9.0},
        {"min_spacing_mm": 30.0},
        {"max_shear_deg": math.nan},
    ):
        with pytest.raises(ConfigError):
            SplitLimits(**wrong)


def test_device_set(make_xml, caplog):
    statics = '<Transform From="Phantom" To="Reference" Matrix="1 0 0 1 0 1 0 2 0 0 1 3 0 0 0 1"/>'
    clip = 'ClipRectangleOrigin="10 20" ClipRectangleSize="80 60"'
    body = f'<VolumeReconstruction ReferenceCoordinateFrame="Tracker" {clip}/>'
    with caplog.at_level(logging.WARNING):
        cal = read_calibration(make_xml(body, transforms=statics), image_size=(100, 90))
    assert caplog.text == ""
    assert cal.pixel_to_mm == ((0.1, 0.0), (0.0, 0.2)) and cal.error_mm == 0.7 and cal.latency_s == 0.0
    expected = torch.tensor([[0, 1, 0, 10], [-1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(cal.probe_T_image, expected)
    assert (cal.image_name, cal.probe_name, cal.world_name) == ("Image", "Probe", "Tracker")
    assert cal.statics.keys() == {"PhantomToReference"} and cal.statics["PhantomToReference"][2, 3] == 3
    sector = cal.geometry
    assert sector.kind == "linear"
    assert sector.clip_mm == pytest.approx((1.0, 4.0, 8.9, 15.8), abs=1e-5)
    assert int(sector.mask().sum()) == 80 * 60
    assert sector.depth_mm == pytest.approx(11.8, abs=1e-4)


def test_no_clip_rectangle_is_the_full_image_with_a_warning(make_xml):
    cal, warnings = read_calibration_with_warnings(make_xml(), (100, 90))
    assert bool(cal.geometry.mask().all())
    assert any("full image rectangle" in w for w in warnings)
    assert any("'Reference' is the world" in w for w in warnings) and cal.world_name == "Reference"


def test_fan_with_unequal_angles(make_xml):
    """PLUS counts angles from +y, positive towards +x; of swapped angles the smaller is the first."""
    isotropic = "0.1 0 0 0  0 0.1 0 0  0 0 0.1 0  0 0 0 1"
    body = (
        '<VolumeReconstruction ReferenceCoordinateFrame="Tracker" FanOriginPixel="50 -30" FanAnglesDeg="30 -10" '
        'FanRadiusStartPixel="40" FanRadiusStopPixel="100"/>'
    )
    sector = read_calibration(make_xml(body, isotropic), (101, 80)).geometry
    assert sector.kind == "convex"
    assert sector.apex_mm == pytest.approx((5.0, -3.0)) and sector.radius_mm == pytest.approx((4.0, 10.0))
    assert [math.degrees(a) for a in sector.angle_rad] == pytest.approx([-10, 30])
    mask = sector.mask()
    for angle_deg, radius_px, inside in [
        (29, 80, True),
        (-9, 80, True),
        (-11, 80, False),
        (31, 80, False),
        (0, 39, False),
    ]:
        column = 50 + radius_px * math.sin(math.radians(angle_deg))
        row = -30 + radius_px * math.cos(math.radians(angle_deg))
        assert bool(sector.contains(torch.tensor([column * 0.1, row * 0.1]))) is inside
    columns = mask.nonzero()[:, 1].double()
    assert columns.mean() > 50  # more of it on the +x side


def test_fan_in_pixels_of_unequal_size(make_xml):
    body = '<VolumeReconstruction FanOriginPixel="50 0" FanAnglesDeg="-45 45" FanRadiusStopPixel="60"/>'
    cal, warnings = read_calibration_with_warnings(make_xml(body), (101, 80))  # pixels of 0.1 x 0.2 mm
    assert cal.geometry.angle_rad == pytest.approx((-math.atan(0.5), math.atan(0.5)))
    assert cal.geometry.radius_mm == pytest.approx((0.0, 12.0))
    assert any("0.1000 x 0.2000" in w for w in warnings)


def test_curvilinear_scan_conversion(make_xml):
    body = (
        '<ScanConversion TransducerGeometry="CURVILINEAR" RadiusStartMm="15" RadiusStopMm="70" ThetaStartDeg="-24" '
        'ThetaStopDeg="24" TransducerCenterPixel="410 35" OutputImageSpacingMmPerPixel="0.2 0.2"/>'
    )
    sector = read_calibration(make_xml(body, "0.2 0 0 0 0 0.2 0 0 0 0 0.2 0 0 0 0 1"), (820, 616)).geometry
    assert sector.kind == "convex" and sector.radius_mm == pytest.approx((15, 70))
    assert sector.apex_mm == pytest.approx((82.0, 7.0 - 15.0))
    assert math.degrees(sector.angle_rad[1]) == pytest.approx(24)


@pytest.mark.parametrize(
    "body",
    [
        '<VolumeReconstruction ClipRectangleOrigin="200 0" ClipRectangleSize="10 10"/>',
        '<VolumeReconstruction FanOriginPixel="5 5" FanAnglesDeg="-3 3" FanRadiusStart="9" FanRadiusStop="3"/>',
        '<VolumeReconstruction FanOriginPixel="5 5" FanAnglesDeg="-95 30" FanRadiusStopPixel="30"/>',
    ],
)
def test_sectors_that_make_no_sense(make_xml, body):
    with pytest.raises(CalibrationError):
        read_calibration(make_xml(body), (100, 90))


def test_clip_rectangle_reaching_outside_is_cut(make_xml):
    body = '<VolumeReconstruction ClipRectangleOrigin="-5 0" ClipRectangleSize="500 500"/>'
    cal, warnings = read_calibration_with_warnings(make_xml(body), (100, 90))
    assert bool(cal.geometry.mask().all()) and any("reaches outside" in w for w in warnings)


def test_image_to_probe_through_a_chain(make_xml):
    transforms = (
        '<Transform From="Image" To="TransducerOriginPixel" Matrix="1 0 0 -50 0 1 0 5 0 0 1 0 0 0 0 1"/>'
        '<Transform From="TransducerOriginPixel" To="TransducerOrigin" Matrix="0.1 0 0 0 0 0.2 0 0 0 0 1 0 0 0 0 1"/>'
        '<Transform From="Probe" To="TransducerOrigin" Matrix="1 0 0 7 0 1 0 0 0 0 1 0 0 0 0 1"/>'
    )
    cal = read_calibration(make_xml("", "", transforms), (100, 90))
    torch.testing.assert_close(torch.tensor(cal.pixel_to_mm), torch.tensor([[0.1, 0.0], [0.0, 0.2]]))
    torch.testing.assert_close(cal.probe_T_image[:3, 3], torch.tensor([-12.0, 1.0, 0.0], dtype=torch.float64))


def test_no_chain_to_the_probe(make_xml):
    with pytest.raises(CalibrationError, match="no transform from 'Image' to 'Probe'"):
        read_calibration(make_xml("", "", '<Transform From="A" To="B" Matrix="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"/>'))


def device(kind, offset=-0.19, sources='<DataSource Type="Video" Id="V"/>'):
    opening = f'<Device Id="D" Type="{kind}" LocalTimeOffsetSec="{offset}">'
    return f"<DataCollection>{opening}{sources}</Device></DataCollection>"


def test_local_time_offset_is_the_negative_of_latency(make_xml):
    cal, warnings = read_calibration_with_warnings(make_xml(device("SavedDataSource")))
    assert cal.latency_s == 0.19 and any("latency_s=0.19" in w for w in warnings)
    live, warnings = read_calibration_with_warnings(make_xml(device("SonixVideo")))
    assert live.latency_s == 0.0 and any("not applied again" in w and "0.19" in w for w in warnings)
    tracker = make_xml(device("SavedDataSource", sources='<DataSource Type="Tool" Id="T"/>'))
    assert read_calibration(tracker).latency_s == 0.0


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not well-formed"),
        ("<PlusConfiguration>", "not well-formed"),
        ("hello", "not well-formed"),
        ("<Other/>", "a 'Other'"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><PlusConfiguration/>', "DOCTYPE"),
        ("<!DOCTYPE x SYSTEM 'file:///etc/passwd'><PlusConfiguration/>", "DOCTYPE"),
        ("<PlusConfiguration>" + "<a>" * 100 + "</a>" * 100 + "</PlusConfiguration>", "nested deeper"),
        ("<PlusConfiguration>&undefined;</PlusConfiguration>", "not well-formed"),
    ],
)
def test_xml_from_outside(tmp_path, text, match):
    (tmp_path / "x.xml").write_text(text)
    with pytest.raises(FileFormatError, match=match):
        read_calibration(tmp_path / "x.xml")


def test_doctype_in_another_encoding(tmp_path):
    doctype = '<!DOCTYPE x [<!ENTITY a "b">]>'
    text = f'<?xml version="1.0" encoding="utf-16"?>{doctype}<PlusConfiguration>&a;</PlusConfiguration>'
    (tmp_path / "x.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(FileFormatError, match="DOCTYPE"):
        read_calibration(tmp_path / "x.xml")


def test_xml_that_is_too_large(tmp_path):
    (tmp_path / "x.xml").write_bytes(b"<PlusConfiguration>" + b" " * 17_000_000 + b"</PlusConfiguration>")
    with pytest.raises(FileFormatError, match="at most"):
        read_calibration(tmp_path / "x.xml")


@pytest.mark.parametrize("matrix", ["1 2 3", "a " * 16, "nan " * 16, "1 " * 17])
def test_matrices_that_are_no_matrices(make_xml, matrix):
    with pytest.raises(FileFormatError, match="expected 16 numbers"):
        read_calibration(make_xml(matrix=matrix))


YAML = """
probe_T_image: [[0, 1, 0, 10], [-1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]]
pixel_to_mm: [[0.1, 0.002], [0, 0.2]]
latency_s: 0.04
names: {image: Image, probe: Probe, world: Tracker}
sector:
  kind: convex
  image_size: [100, 90]
  apex_mm: [5.0, -3.0]
  radius_mm: [4.0, 20.0]
  angle_rad: [-0.5, 0.5]
"""


def write(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    return tmp_path / "c.yaml"


def test_yaml(tmp_path):
    cal, warnings = read_calibration_with_warnings(write(tmp_path, YAML))
    assert cal.latency_s == 0.04 and cal.pixel_to_mm == ((0.1, 0.002), (0.0, 0.2)) and math.isnan(cal.error_mm)
    assert cal.geometry.kind == "convex" and cal.geometry.depth_mm == 16.0
    assert cal.geometry.clip_mm == pytest.approx((0.0, 0.0, 10.078, 17.8))
    assert any("sheared by 0.57" in w for w in warnings)


@pytest.mark.parametrize("source", ["yaml", "xml"])
def test_writing_and_reading_gives_the_same(tmp_path, make_xml, source):
    fan = '<VolumeReconstruction FanOriginPixel="50 -3" FanAnglesDeg="-20 31" FanRadiusStopPixel="60"/>'
    statics = '<Transform From="Phantom" To="Reference" Matrix="1 0 0 1 0 1 0 2 0 0 1 3 0 0 0 1"/>'
    path = write(tmp_path, YAML) if source == "yaml" else make_xml(fan, transforms=statics)
    first = read_calibration(path, (100, 90))
    write_calibration(first, tmp_path / "again.yaml")
    second = read_calibration(tmp_path / "again.yaml")
    torch.testing.assert_close(second.probe_T_image, first.probe_T_image, atol=1e-14, rtol=0)
    assert second.geometry == first.geometry and second.pixel_to_mm == first.pixel_to_mm
    assert second.latency_s == first.latency_s and second.world_name == first.world_name
    assert second.statics.keys() == first.statics.keys()
    assert second.error_mm == first.error_mm or math.isnan(first.error_mm)


@pytest.mark.parametrize(
    ("old", "new", "kind", "match"),
    [
        ("latency_s", "latency", ConfigError, r"unknown key \['latency'\]"),
        ("0.04", ".nan", CalibrationError, "latency_s is nan"),
        ("0.04", "40", CalibrationError, "within 10"),
        ("[0, 1, 0, 10]", "[0, 2, 0, 10]", GeometryError, "not rigid"),
        ("[0, 1, 0, 10]", "[0, -1, 0, 10]", GeometryError, "not rigid|mirrored"),
        ("[0, 1, 0, 10]", "[0, .nan, 0, 10]", GeometryError, "NaN"),
        ("[0, 1, 0, 10]", "[0, 1, 0]", ConfigError, "4 values"),
        ("[0.1, 0.002]", "[0.0, 0.002]", GeometryError, "pixel_to_mm"),
        ("[0.1, 0.002]", "[0.1, .inf]", GeometryError, "pixel_to_mm"),
        ("[0, 0.2]", "[0.1, 0.2]", GeometryError, "upper triangular"),
        ("[0.1, 0.002]", "[0.1, 0.05]", CalibrationError, "sheared"),
        ("convex", "square", ConfigError, "choose one of"),
        ("  apex_mm: [5.0, -3.0]\n", "", CalibrationError, "needs apex_mm"),
        ("[4.0, 20.0]", "[20.0, 4.0]", GeometryError, "far radius|is empty"),
        ("[100, 90]", "[100.5, 90]", ConfigError, "must be int"),
    ],
)
def test_yaml_that_is_wrong(tmp_path, old, new, kind, match):
    assert old in YAML
    with pytest.raises(kind, match=match):
        read_calibration(write(tmp_path, YAML.replace(old, new)))


def test_images_of_another_size(tmp_path):
    path = write(tmp_path, YAML)
    with pytest.raises(CalibrationError, match="100x90, these are 50x50"):
        read_calibration(path, (50, 50))
    with pytest.raises(CalibrationError, match="100x90, these are 50x50"):
        sector_for(read_calibration(path), 50, 50)


def test_without_sector_the_whole_image_counts(tmp_path):
    text = YAML[: YAML.index("sector")]
    cal = read_calibration(write(tmp_path, text))
    assert cal.geometry is None
    assert bool(sector_for(cal, 30, 20).mask().all())
    _, warnings = read_calibration_with_warnings(tmp_path / "c.yaml", (30, 20))
    assert any("full image rectangle" in w for w in warnings)


def test_files_that_are_no_calibration(tmp_path):
    with pytest.raises(MissingFileError):
        read_calibration(tmp_path / "absent.yaml")
    with pytest.raises(MissingFileError):
        read_calibration(tmp_path / "absent.xml")
    (tmp_path / "c.txt").write_text("x")
    with pytest.raises(FileFormatError, match="no calibration"):
        read_calibration(tmp_path / "c.txt")


@given(text=st.text(max_size=60))
def test_any_text_as_yaml_is_refused_cleanly(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("y") / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsregError):
        read_calibration(path)
