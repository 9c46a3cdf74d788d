"""Ask a citeflow server for citations over several connections, and say how long the answers took.

Any Python 3.11 runs it: `python3 manifests/load-test/load.py http://127.0.0.1:8080`. It begins with
the papers that the words of --search find, or the ids of --papers, and goes on with those that the
server names in its answers; all are asked for in turn.
"""

import argparse
import collections
import http.client
import itertools
import json
import statistics
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

TIMEOUT_S = 60.0

MANY = 100
"""Papers to ask for, so that not all answers come out of caches."""

PAUSE_S = 0.1
"""After a fault, before the next request of a connection."""


def main() -> None:
    """Load the server for a while; the exit status is 1 where answers were lost or too late."""
    options = read_options()
    try:
        seeds = options.papers.split(",") if options.papers else find_papers(options)
        papers = collect(options, seeds)
    except OSError as error:
        sys.exit(f"error: the server does not answer: {options.url}: {error}")
    if not papers:
        sys.exit("error: no paper can be answered\nhint: --papers ID,ID or --search WORDS")
    begin = time.monotonic()
    outcomes = load(options, papers, until=begin + options.seconds)
    report = summarize(outcomes, time.monotonic() - begin)
    print(json.dumps(report))
    if not report["answers"] or report["failed"]:
        sys.exit("error: not every request was answered")
    if options.p99_ms and report["p99_ms"] > options.p99_ms:
        sys.exit(f"error: p99 is longer than {options.p99_ms:g} ms")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--papers", help="ids with commas between")
    parser.add_argument("--search", default="1000", help="words of titles, or an id")
    parser.add_argument("--p99-ms", type=float, help="fail where it takes longer")
    return parser.parse_args()


def find_papers(options: argparse.Namespace) -> list[str]:
    """Return ids of papers that the server has."""
    query = urllib.parse.urlencode({"q": options.search, "limit": 50})
    address = f"{options.url.rstrip('/')}/v1/papers?{query}"
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
        papers = json.load(answer)["papers"]
    if not papers:
        sys.exit(f"error: no paper found: {options.search}\nhint: --papers ID,ID or --search WORDS")
    return [str(paper["id"]) for paper in papers]


def collect(options: argparse.Namespace, seeds: list[str]) -> list[str]:
    """Return papers that can be answered, at least 100 if the answers lead to so many."""
    seen, papers = list(dict.fromkeys(seeds)), []
    for paper in seen:  # it grows
        found = predictions(options.url, paper)
        if found is not None:
            papers.append(paper)
            seen += [each for each in found if each not in seen]
        if len(papers) == MANY:
            break
    return papers


def predictions(url: str, paper: str) -> list[str] | None:
    """Return the ids of an answer; None where there can be none, as for the oldest paper."""
    address = f"{url.rstrip('/')}/v1/papers/{urllib.parse.quote(paper, safe='')}/citations"
    request = urllib.request.Request(address, b"{}", {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return [str(each["id"]) for each in json.load(answer)["predictions"]]
    except urllib.error.HTTPError:
        return None


def load(
    options: argparse.Namespace, papers: list[str], *, until: float
) -> list[tuple[str, float]]:
    """Return the outcome (a status, or what went wrong) and the seconds of each request."""
    outcomes: list[tuple[str, float]] = []
    numbers = itertools.count()

    def ask_on() -> None:
        parts = urllib.parse.urlsplit(options.url)
        secure = parts.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(parts.netloc, timeout=TIMEOUT_S)
        while time.monotonic() < until:
            paper = urllib.parse.quote(papers[next(numbers) % len(papers)], safe="")
            begin = time.monotonic()
            try:
                path = f"{parts.path.rstrip('/')}/v1/papers/{paper}/citations"
                connection.request("POST", path, "{}", {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                outcome = str(answer.status)
                if outcome == "429":
                    time.sleep(min(5.0, float(answer.headers.get("Retry-After", "1"))))
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                outcome = type(error).__name__
                time.sleep(PAUSE_S)
            outcomes.append((outcome, time.monotonic() - begin))

    threads = [threading.Thread(target=ask_on) for _ in range(options.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def summarize(outcomes: list[tuple[str, float]], seconds: float) -> dict[str, object]:
    """Return counts, rate and percentiles; a 429 is the server's way to say that it is full."""
    times = sorted(1000 * took for outcome, took in outcomes if outcome == "200")
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else times * 99
    counts = collections.Counter(outcome for outcome, _ in outcomes)
    return {
        "answers": len(times),
        "refused": counts["429"],
        "failed": len(outcomes) - len(times) - counts["429"],
        "outcomes": dict(counts),
        "per_s": round(len(times) / seconds, 1),
        **{f"p{n}_ms": round(cuts[n - 1], 1) for n in (50, 90, 99) if cuts},
    }


if __name__ == "__main__":
    main()
