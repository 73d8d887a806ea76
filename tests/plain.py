"""What clients of plain HTTP are given instead of all certificates, which take 50 ms to load."""

from __future__ import annotations

import ssl

TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""As `verify` of a client."""
