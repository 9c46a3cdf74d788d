"""Write web/openapi.json from the routes of the platform; the page's types are made from it.

With `--check` it only says whether the file is fresh.
"""

import json
import sys
import tempfile
from pathlib import Path

from citeflow.platform.app import create_app
from citeflow.platform.backends.local import LocalBackend
from citeflow.platform.services import Services
from citeflow.platform.store import Store

FILE = Path(__file__).resolve().parents[1] / "web" / "openapi.json"


def main() -> None:
    """Write the file, or check it."""
    text = render()
    if "--check" not in sys.argv[1:]:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text)
    elif not FILE.exists() or FILE.read_text() != text:
        sys.exit("error: not fresh: web/openapi.json\nhint: make generate")


def render() -> str:
    """Return the description as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.of_folder(Path(folder))
        services = Services.of(store, LocalBackend(Path(folder)), "http://127.0.0.1:8080")
        described = create_app(services, static=Path(folder)).openapi()
        store.close()
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
