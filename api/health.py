"""Health check for containers: `python -m api.health [--host H] [--port P]` asks /readyz of the api on this machine.

Exit code 0 and the answer on stdout if it is ready; 1 and the reason on stderr if it is not. No proxy comes between.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import urllib.error
import urllib.request

from jobs.settings import InvalidSettings, load

TIMEOUT_SECONDS = 4.0
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  asked of, not bound to


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m api.health", description=__doc__)
    parser.add_argument("--host", default=None, help="address that the api listens on (TRAIND_HOST, else 127.0.0.1)")
    parser.add_argument("--port", type=int, default=None, help="its port (TRAIND_PORT, else 8321)")
    given = parser.parse_args()
    try:
        settings = load(host=given.host, port=given.port)
        url = f"{address(settings.host, settings.port)}/readyz"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(url, timeout=TIMEOUT_SECONDS) as answer:
            sys.stdout.write(answer.read().decode() + "\n")
            return 0
    except urllib.error.HTTPError as e:
        sys.stderr.write(e.read().decode(errors="replace") + "\n")
    except InvalidSettings as e:
        sys.stderr.write(f"{e}\n")
    except (OSError, http.client.HTTPException) as e:
        sys.stderr.write(f"{url} does not answer: {e}\n")
    return 1


def address(host: str, port: int) -> str:
    """The URL at which a service that listens on `host` is asked from this machine."""
    host = EVERY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


if __name__ == "__main__":
    raise SystemExit(main())
