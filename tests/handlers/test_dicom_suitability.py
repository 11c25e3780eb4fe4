"""What is no frontal chest radiograph, by its tags."""

import io
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from handlers import pixels
from handlers.dicom import WARN, Policy
from tests.handlers.dicom_files import TWELVE, code, file, radiograph, refusal

CHILDREN = Policy(WARN, ages=(1, 5))


@pytest.mark.parametrize(
    ("tags", "tag"),
    [
        ({"Modality": "CT"}, "Modality (0008,0060)"),
        ({"Modality": "RG"}, "Modality (0008,0060)"),
        ({"Modality": None}, "Modality (0008,0060)"),
        ({"BodyPartExamined": "RIBCAGE"}, "BodyPartExamined (0018,0015)"),
        ({"BodyPartExamined": "SKULL"}, "BodyPartExamined (0018,0015)"),
        ({"ViewPosition": "LL"}, "ViewPosition (0018,5101)"),
    ],
)
def test_what_is_unsuitable_is_refused_or_told(tags: dict[str, Any], tag: str) -> None:
    content = file(radiograph(TWELVE, 12, **tags))
    result = refusal(content)
    assert (result.status, result.type) == (422, "UnsuitableImage")
    assert tag in str(result)
    decoded = pixels.read(content, 32, Policy(WARN))
    assert [warning for warning in decoded.warnings if tag in warning]


def test_a_lateral_view_by_its_code() -> None:
    code = Dataset()
    code.CodeMeaning = "Left lateral projection"
    content = file(radiograph(TWELVE, 12, ViewPosition=None, ViewCodeSequence=[code]))
    assert "ViewPosition" in str(refusal(content))


def test_modalities_by_setting() -> None:
    content = file(radiograph(TWELVE, 12, Modality="RG"))
    assert not pixels.read(content, 32, Policy(modalities=frozenset({"RG"}))).warnings


@pytest.mark.parametrize("part", ["CHEST", "CHEST PA", "PORT CHEST", "THORAX", "LUNG"])
def test_names_of_the_chest(part: str) -> None:
    assert not pixels.read(file(radiograph(TWELVE, 12, BodyPartExamined=part)), 32).warnings


def test_what_is_missing_is_told() -> None:
    content = file(radiograph(TWELVE, 12, BodyPartExamined=None, ViewPosition=None))
    noticed = pixels.read(content, 32).warnings
    assert ["BodyPartExamined" in noticed[0], "ViewPosition" in noticed[1]] == [True, True]


@pytest.mark.parametrize(
    ("age", "printed"),
    [("005Y", False), ("018M", False), ("006Y", True), ("081", True), ("011M", True), ("x", False)],
)
def test_age(age: str, printed: bool) -> None:
    content = file(radiograph(TWELVE, 12))
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.add_new("PatientAge", "LO", age)  # so that a broken one can be written
    noticed = pixels.read(file(dataset), 32, Policy(ages=(1, 5))).warnings
    assert bool(noticed) == printed
    assert not pixels.read(file(dataset), 32).warnings  # the network does not say what it knows


def warnings_of(policy: Policy = Policy(), **tags: Any) -> list[str]:  # noqa: B008 -- frozen
    return list(pixels.read(file(radiograph(TWELVE, 12, **tags)), 32, policy).warnings)


# --- the part examined


@pytest.mark.parametrize(
    "part",
    [
        "CHEST_PA",
        "CHEST1VIEW",
        "CHESTPA",
        "PORTCHEST",
        "Chest 2 views",
        "TORAX",
        "TÓRAX PA",
        "TORAX_AP",
        "THORAX AP",
        "RX TORACE",
        "RXTHORAX",
        "THORAX/LUNGE",
        "LUNGS",
        "PULMONES",
        "POUMONS",
        "CXR",
        "HRUDNÍK",
        "KLATKA PIERSIOWA",
    ],
)
def test_names_of_the_chest_in_the_field(part: str) -> None:
    dataset = radiograph(TWELVE, 12)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.add_new("BodyPartExamined", "LO", part)
    assert not pixels.read(file(dataset), 32).warnings


@pytest.mark.parametrize(
    "part",
    [
        "CHESTABDOMEN",
        "HEADNECKCHEST",
        "TSPINE",
        "THORACIC SPINE",
        "T SPINE",
        "ABDOMEN",
        "RIB",
        "RIBS",
        "STERNUM",
        "HAND",
        "EXTREMITY",
        "BREAST",
    ],
)
def test_names_of_other_parts(part: str) -> None:
    result = refusal(file(radiograph(TWELVE, 12, BodyPartExamined=part)))
    assert (result.status, "BodyPartExamined (0018,0015)" in str(result)) == (422, True)


@pytest.mark.parametrize("part", [None, "", "UNKNOWN", "OTHER"])
@pytest.mark.parametrize(
    "description",
    [
        {"StudyDescription": "XR CHEST PA AND LATERAL"},
        {"SeriesDescription": "Thorax pa"},
        {"ProtocolName": "RX TORAX"},
    ],
)
def test_a_description_tells_the_part_where_its_tag_does_not(
    part: str | None, description: dict[str, str]
) -> None:
    assert not warnings_of(BodyPartExamined=part, **description)


def test_a_description_of_another_part() -> None:
    result = refusal(file(radiograph(TWELVE, 12, BodyPartExamined=None, ProtocolName="KNEE AP")))
    assert "ProtocolName (0018,1030)" in str(result)
    noticed = warnings_of(StudyDescription="XR ABDOMEN")  # of the whole study
    assert "StudyDescription (0008,1030)" in noticed[0]
    assert "BodyPartExamined (0018,0015)" in noticed[0]


@pytest.mark.parametrize(
    "region",
    [
        code("51185008", "SCT", "Thorax"),
        code("816094009", "SCT", "poitrine"),
        code("T-D3000", "SRT", "Chest"),
        code("T-D3000", "SNM3", "Chest"),
        code("1", "99LOCAL", "Chest"),
    ],
)
def test_the_region_by_its_code(region: Dataset) -> None:
    assert not warnings_of(BodyPartExamined=None, AnatomicRegionSequence=[region])
    assert not refused(BodyPartExamined="HRUD", AnatomicRegionSequence=[region])


def refused(**tags: Any) -> str:
    """The reason of a refusal; empty where it is answered."""
    try:
        pixels.read(file(radiograph(TWELVE, 12, **tags)), 32)
    except pixels.ImageError as error:
        assert error.status == 422  # noqa: PT017 -- or none
        return str(error)
    return ""


def test_contradictory_parts_are_both_named() -> None:
    region = [code("51185008", "SCT", "Thorax")]
    why = refused(BodyPartExamined="KNEE", AnatomicRegionSequence=region)
    assert "BodyPartExamined (0018,0015)" in why
    assert "AnatomicRegionSequence (0008,2218)" in why
    why = refused(AnatomicRegionSequence=[code("72696002", "SCT", "Knee")])
    assert "AnatomicRegionSequence (0008,2218)" in why
    assert "BodyPartExamined (0018,0015)" in why


# --- the view


@pytest.mark.parametrize(
    ("view", "frontal"),
    [
        (code("399067008", "SCT", "profil gauche"), False),
        (code("R-102CD", "SRT", "Seitenaufnahme"), False),
        (code("R-10236", "SNM3", ""), False),
        (code("399173006", "SCT", "PA"), False),
        (code("399182000", "SCT", "schräg"), False),
        (code("399348003", "SCT", "bilateral lateral oblique"), True),
        (code("272479007", "SCT", "PA, bilateral"), True),
        (code("R-10206", "SRT", "a.p."), True),
        (code("R-10214", "SRT", "p.a."), True),
    ],
)
def test_the_view_by_its_code(view: Dataset, frontal: bool) -> None:
    """PS3.16, CID 4010, whatever language its meaning is in."""
    why = refused(ViewPosition=None, ViewCodeSequence=[view])
    assert ("ViewCodeSequence (0054,0220)" in why) == (not frontal)
    if frontal:
        assert not warnings_of(ViewPosition=None, ViewCodeSequence=[view])


def test_a_code_means_something_in_its_scheme_alone() -> None:
    view = code("399067008", "99LOCAL", "front")
    noticed = warnings_of(ViewPosition=None, ViewCodeSequence=[view])
    assert "ViewPosition (0018,5101)" in noticed[0]


@pytest.mark.parametrize(
    ("meaning", "lateral"), [("Lateral", True), ("PA bilateral", False), ("oblique", True)]
)
def test_the_meaning_of_an_unknown_code(meaning: str, lateral: bool) -> None:
    why = refused(ViewPosition="", ViewCodeSequence=[code("1", "99LOCAL", meaning)])
    assert bool(why) == lateral


def test_contradictory_views_are_both_named() -> None:
    why = refused(ViewCodeSequence=[code("399067008", "SCT", "lateral")])
    assert "ViewCodeSequence (0054,0220)" in why
    assert "ViewPosition (0018,5101)" in why
    why = refused(ViewPosition="LL", ViewCodeSequence=[code("272479007", "SCT", "PA")])
    assert "ViewCodeSequence (0054,0220)" in why
    assert "ViewPosition (0018,5101)" in why


# --- the age


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"PatientAge": "045Y"}, "PatientAge (0010,1010)"),
        (
            {"PatientBirthDate": "19700101", "StudyDate": "20240101"},
            "PatientBirthDate (0010,0030)",
        ),
        ({"PatientBirthDate": "19700101", "SeriesDate": "20240101"}, "PatientBirthDate"),
        ({"PatientBirthDate": "20231231", "StudyDate": "20240101"}, "PatientBirthDate"),
        ({"PatientBirthDate": "20210101", "StudyDate": "20240101"}, ""),
        # Contradictory: the tag that is out of range is named.
        (
            {"PatientAge": "003Y", "PatientBirthDate": "19700101", "StudyDate": "20240101"},
            "PatientBirthDate",
        ),
        (
            {"PatientAge": "060Y", "PatientBirthDate": "20210101", "StudyDate": "20240101"},
            "PatientAge",
        ),
        ({"PatientBirthDate": "19700101"}, ""),
        ({"PatientBirthDate": "20250101", "StudyDate": "20240101"}, ""),  # born afterwards
        ({"PatientBirthDate": "19701301", "StudyDate": "20240101"}, ""),
        ({"StudyDate": "20240101"}, ""),
    ],
)
def test_the_age_by_any_tag(tags: dict[str, str], named: str) -> None:
    noticed = warnings_of(CHILDREN, **tags)
    assert [named in warning for warning in noticed] == ([True] if named else [])
    assert all("age" in warning for warning in noticed)


def test_a_date_as_old_files_have_it() -> None:
    dataset = radiograph(TWELVE, 12)
    for keyword, day in (("PatientBirthDate", "1970.01.01"), ("StudyDate", "2024.01.01")):
        dataset.add_new(keyword, "LO", day)
    assert "PatientBirthDate" in pixels.read(file(dataset), 32, CHILDREN).warnings[0]


# --- raw values


def test_raw_values_are_answered_with_a_warning() -> None:
    noticed = warnings_of(PresentationIntentType="FOR PROCESSING")
    assert "PresentationIntentType (0008,0068)" in noticed[0]
    assert not warnings_of(PresentationIntentType="FOR PRESENTATION")
