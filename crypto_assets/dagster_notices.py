"""Which of Dagster's notices are not shown: importing this module filters them, here and in the code server.

Beta and preview features are used knowingly, each with a test on the pinned version; superseded names are those that
Dagster's own command line still calls. Every other warning is shown, and is an error in the tests.
"""

from __future__ import annotations

import warnings

from dagster_shared.utils.warnings import BetaWarning, PreviewWarning, SupersessionWarning

EXPECTED = (BetaWarning, PreviewWarning, SupersessionWarning)

for _category in EXPECTED:
    warnings.filterwarnings("ignore", category=_category)
