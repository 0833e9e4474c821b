"""Every page in each theme of the admin that is installed."""

import pytest

from .themes import THEMES, is_installed, rehearse


@pytest.mark.parametrize("theme", THEMES)
def test_every_page_is_there_in_a_theme(theme):
    if not is_installed(theme):
        pytest.skip(f"{theme} is not installed: pip install -e '.[themes]'")
    code, said = rehearse(theme)
    assert (code, said.strip()) == (0, "")
