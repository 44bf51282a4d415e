"""Options of a JVM that lives minutes on tables of a few rows: the second compiler and G1 cost more than they give.

They change no result. The first compiler alone has a code cache of 48 MB by default, which Spark fills within two
minutes: the JVM says so on its standard output and interprets whatever it has not compiled by then.
"""

from __future__ import annotations

OPTIONS = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"
