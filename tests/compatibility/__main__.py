"""`python -m tests.compatibility`: takes over what contract tests have noted since, and writes docs/compatibility.md."""

import json

from tests.compatibility.results import RESULTS, counted, kept
from tests.compatibility.table import PAGE, document, page
from tests.support.calls import notes


def main() -> None:
    results = {**kept(), **counted(list(notes()), document())}
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(document(), results))
    print(f"{PAGE} is written, from {sum(each['tests'] for each in results.values())} tests")


main()
