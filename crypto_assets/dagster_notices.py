"""Warning filters for Dagster, installed on import in the CLI and in the code server.

Beta and preview features are used deliberately, each with a test on the pinned version; superseded names are called by
Dagster's own command line. All other warnings are shown, and are errors in the tests.
"""

from __future__ import annotations

import warnings

from dagster_shared.utils.warnings import BetaWarning, PreviewWarning, SupersessionWarning

EXPECTED = (BetaWarning, PreviewWarning, SupersessionWarning)

for _category in EXPECTED:
    warnings.filterwarnings("ignore", category=_category)
