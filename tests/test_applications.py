"""docs/applications.md is true."""

import pytest

from tests.applications import FORMATS, SIDES, said
from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("name", SIDES)
def test_applications_convert_as_the_table_says(name, output_format, store, tmp_path):
    row = next(
        line
        for line in (ROOT / "docs" / "applications.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| {name} |")
    )
    cell = row.replace("\\|", "/").split(" | ")[2 + FORMATS.index(output_format)].rstrip(" |")
    assert said(name, output_format, tmp_path) == cell
