from __future__ import annotations

from pathlib import Path

from conftest import Workbench

EXAMPLES = 2000


def test_listener_and_publisher_agree_or_are_refused_for_the_same_reason(bench: Workbench) -> None:
    bench.variables["METAFLOW_USER"] = "(unset)"
    result = bench.run(Path(__file__).parent / "both_sides.py", str(EXAMPLES))
    assert result.stdout.startswith("agreed: "), result.output
