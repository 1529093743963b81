"""``lisabench view``."""

import pytest

pytestmark = pytest.mark.no_clock
