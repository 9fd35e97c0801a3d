"""Health check for containers: `python -m api.health [--port P]` asks /readyz of the api on this machine.

Exit code 0 and the answer on stdout where it is ready; 1 and the reason on stderr where it is not.
"""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request

from jobs.settings import InvalidSettings, load

TIMEOUT_SECONDS = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m api.health", description=__doc__)
    parser.add_argument("--port", type=int, default=None, help="default: TRAIND_PORT, else 8321")
    port = parser.parse_args().port
    try:
        url = f"http://127.0.0.1:{load().port if port is None else port}/readyz"
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            sys.stdout.write(answer.read().decode() + "\n")
            return 0
    except urllib.error.HTTPError as e:
        sys.stderr.write(e.read().decode() + "\n")
    except InvalidSettings as e:
        sys.stderr.write(f"{e}\n")
    except OSError as e:
        sys.stderr.write(f"{url} does not answer: {e}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
