"""The named mel definitions."""

import pytest
from support.messages import Messages

from wavegen.errors import MelError
from wavegen.mel import PROFILES, MelSpec, profile


def test_profiles_differ_and_survive_json() -> None:
    assert len(set(PROFILES.values())) == len(PROFILES)
    for spec in PROFILES.values():
        assert MelSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("name", ["bigvgan24k", "something else"])
def test_an_unknown_name_is_refused_with_the_nearest_or_all_names(name: str, messages: Messages) -> None:
    with messages.refused(MelError):
        profile(name)
