"""A secret is not shown however it is written."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from crypto_assets.redaction import REDACTED, redact

SECRETS = {"KEY": 'CG-a/b+"c\\d', "HOOK": "https://hooks.example/services/T0/S3CRET?x=1", "SHORT": "abc"}
KEY = SECRETS["KEY"]


@pytest.mark.parametrize(
    "written",
    [
        KEY,
        quote(KEY, safe=""),
        quote(KEY, safe="").replace("%2F", "%2f"),
        json.dumps(KEY)[1:-1],
        "".join(f"\\u{ord(c):04X}" for c in KEY),
        "".join(f"%{ord(c):02x}" for c in KEY),
        "".join(f"&#{ord(c)};" for c in KEY),
        KEY[:5] + quote(KEY[5:], safe=""),
    ],
)
def test_every_way_of_writing_it_is_found(written):
    assert redact(f"key <{written}> refused", SECRETS) == f"key <{REDACTED}> refused"


def test_the_path_of_a_secret_address_is_one_too():
    text = "HTTPSConnectionPool(host='hooks.example'): Max retries exceeded with url: /services/T0/S3CRET?x=1"
    assert "S3CRET" not in redact(text, SECRETS)
    assert redact("abc", SECRETS) == "abc"


def test_so_is_the_password_of_any_address():
    assert redact("Cannot connect to http://jane:pw@proxy:3128", {}) == "Cannot connect to http://jane:***@proxy:3128"


def test_a_name_may_stand_for_it():
    assert redact(KEY, SECRETS, mark=lambda name: f"<{name}>") == "<KEY>"
