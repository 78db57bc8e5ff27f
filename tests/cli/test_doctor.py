"""`doctor` finds what is broken and says what to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Call, distribution, environment

ENTRIES = """
[diffloom.sampler]
sad = dl_sad:Sad
gone = dl_nowhere:Gone
[diffloom.hooks]
loud = dl_loud:Loud
"""


def test_doctor_tells_of_broken_plugins_and_hooks(tmp_path: Path) -> None:
    sad, loud = "raise ValueError('bad day')\n", "class Loud:\n    pass\n"
    distribution(tmp_path, "dl-sad", ENTRIES, dl_sad=sad, dl_loud=loud)
    done = subprocess.run(
        [sys.executable, "-m", "diffloom", "doctor", "--json"],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is False
    broken = {entry["name"]: entry for entry in found["broken"] if entry["distribution"] == "dl-sad"}
    assert set(broken) == {"sad", "gone", "loud"}
    assert [entry for entry in found["broken"] if entry["distribution"] == "diffloom"] == []
    assert {entry["version"] for entry in broken.values()} == {"1.5"}
    assert "ValueError: bad day" in broken["sad"]["reason"]
    assert broken["gone"]["remedy"]
    assert "no hook functions" in broken["loud"]["reason"]
    assert found["environment"]["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert found["packages"]["torch"]


def test_doctor_describes_what_it_found() -> None:
    from diffloom.cli.doctor import described

    found = {
        "ok": False,
        "environment": {"python": "3.x"},
        "packages": {"torch": "2", "rich": None},
        "missing": ["rich"],
        "components": {"dl-sad 1.5": 2},
        "broken": [
            {
                "kind": "sampler",
                "name": "sad",
                "source": "dl-sad 1.5",
                "value": "dl_sad:Sad",
                "reason": "it cannot be imported",
                "remedy": "upgrade dl-sad",
            }
        ],
        "slow": [{"value": "dl_slow:Slow", "source": "dl-slow 1", "seconds": 3.25}],
    }
    text = described(found)
    assert "  sampler/sad  dl-sad 1.5  dl_sad:Sad\n    it cannot be imported\n    upgrade dl-sad" in text
    assert "pip install rich" in text
    assert "3.2 s  dl_slow:Slow" in text


def test_doctor_is_content_where_nothing_is_broken(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffloom.cli.doctor._plugins", lambda: ([], [], {"diffloom": 3}))
    said = call("doctor")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("all is well\n")
