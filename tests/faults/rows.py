"""The rows of docs/faults.md: which fault, what holds nevertheless, and how that is tried."""

from dataclasses import dataclass

PROCESSES = "Processes"
STORAGE = "Checkpoints and storage"
DATA = "Data"
ORCHESTRATION = "Orchestration"
SECURITY = "Security"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A fault and the answer to it."""

    id: str
    section: str
    fault: str
    holds: str

    tried: str = ""
    """How the tests bring the fault about; empty where only a cluster could."""

    unproven: str = ""
    """What no test here shows."""


ROWS = (
    Row(
        id="F1",
        section=PROCESSES,
        fault="a worker is killed within a step",
        holds="all start again from the newest checkpoint and make the same model to the bit",
        tried="real processes, SIGKILL at steps drawn from seeds",
    ),
    Row(
        id="F2",
        section=PROCESSES,
        fault="a worker vanishes from the network without a word",
        holds="the others end within 10 s after `recovery.step_timeout_s`, and training goes on from the checkpoint",
        tried="network namespaces whose link is taken away",
    ),
    Row(
        id="F3",
        section=PROCESSES,
        fault="a worker stops, holds Python's lock for longer than the timeout, or is only slow",
        holds="one that stands still counts as lost after the timeout; one that is only slow does not",
        tried="real processes: SIGSTOP, the lock held, a pause in each step",
    ),
    Row(
        id="F4",
        section=PROCESSES,
        fault="rank 0 dies, or its node comes late",
        holds="all leave, wait for each other and train together again; no two attempts mix",
        tried="real processes: rank 0 killed, a rank started late",
    ),
    Row(
        id="F5",
        section=PROCESSES,
        fault="death at any system call of a save",
        holds="the newest complete checkpoint is always found and verified",
        tried="a stand-in for the disk that ends the save at each call; strace that kills it at each",
    ),
    Row(
        id="F6",
        section=PROCESSES,
        fault="SIGTERM, as when a pod is evicted",
        holds="all workers save the same step and end with 143; what goes on later does no step twice",
        tried="real processes: SIGTERM to all, to one, to the launcher",
    ),
    Row(
        id="F7",
        section=PROCESSES,
        fault="SIGTERM at start-up, at an evaluation, during a save, or twice",
        holds="the end comes within 20 s with code 143, and nothing half-written is left",
        tried="real processes, stopped in each phase",
    ),
    Row(
        id="F8",
        section=PROCESSES,
        fault="SIGTERM to the first process of a container",
        holds="it ends in less than 2 s, and what it started with it",
        tried="a process namespace of its own, in which the command is process 1",
    ),
    Row(
        id="F9",
        section=PROCESSES,
        fault="a worker is killed every 15 s or so, for three minutes",
        holds="training ends with the model of an undisturbed run; memory, files and threads do not grow",
        tried="real processes, kills drawn from a seed",
    ),
    Row(
        id="F10",
        section=PROCESSES,
        fault="the same step fails every time",
        holds="three attempts in a row that begin at one step end the job with code 75 and the reason",
        tried="real processes with a fault at one step",
    ),
    Row(
        id="F11",
        section=PROCESSES,
        fault="work that the workers cannot share evenly",
        holds="every worker takes as many steps; what a pass leaves out is counted",
        tried="many sizes and numbers of workers",
    ),
    Row(
        id="F12",
        section=PROCESSES,
        fault="a loss or gradient of one worker is not a number",
        holds="all stop before the update; no checkpoint holds such weights",
        tried="ranks of which one is given NaN or infinity",
    ),
    Row(
        id="F13",
        section=PROCESSES,
        fault="resuming with other data, settings or another number of workers",
        holds="refused; the error names what differs, with both values",
        tried="runs begun in one way and continued in another",
    ),
    Row(
        id="F14",
        section=PROCESSES,
        fault="memory runs out",
        holds="the error says so, and training is not started again without end",
        tried="peaks of memory measured and foretold; a counter that stands in for the kernel",
        unproven="a kill by the kernel itself",
    ),
    Row(
        id="F15",
        section=PROCESSES,
        fault="tiny /dev/shm, read-only root, no HOME, a user without a name",
        holds="it works, or ends before training with one error that says what is missing",
        tried="mount and user namespaces, as far as the machine allows them",
    ),
    Row(
        id="F16",
        section=STORAGE,
        fault="a checkpoint with a flipped bit, a cut, a missing or a strange file",
        holds="found by its digest and told; the one before is used; all damaged is an error, never a fresh start",
        tried="real checkpoints, damaged at places drawn from seeds",
    ),
    Row(
        id="F17",
        section=STORAGE,
        fault="disk full, quota, input/output error or read-only disk during a save",
        holds="the error is told, the checkpoints before are whole, nothing half-written stays",
        tried="a stand-in for the disk that fails; a small real one",
    ),
    Row(
        id="F18",
        section=STORAGE,
        fault="old checkpoints are removed beside torn ones and strange names",
        holds="the newest two complete ones stay; only folders that a training made are removed",
        tried="folders of every kind, a removal that fails",
    ),
    Row(
        id="F19",
        section=STORAGE,
        fault="a shared disk shows files late, or loses its handle (ESTALE)",
        holds="rank 0 alone reads and tells the others; one further try, then an error and no hang",
        tried="stand-ins for the disk that lag or fail, once or always",
    ),
    Row(
        id="F20",
        section=STORAGE,
        fault="two trainings write to one run",
        holds="the newer attempt owns it; the older one stops at its next write",
        tried="two attempts on one folder, the first frozen and woken again",
    ),
    Row(
        id="F21",
        section=STORAGE,
        fault="TensorBoard's curves after a resume, also with a clock that is behind",
        holds="steps rise strictly: none twice, none missing",
        tried="logs read by both of TensorBoard's readers",
    ),
    Row(
        id="F22",
        section=STORAGE,
        fault="every worker would write curves",
        holds="rank 0 alone writes: one event file for each start",
        tried="the files of real trainings, counted",
    ),
    Row(
        id="F23",
        section=DATA,
        fault="downloads that are cut, stalled, redirected, refused or something else",
        holds="only what has its digest is accepted; a cut one goes on where it was cut; the time is bounded",
        tried="a local server that does all of it",
    ),
    Row(
        id="F24",
        section=DATA,
        fault="hostile archives: paths to elsewhere, links, bombs, too many entries, names twice",
        holds="refused; nothing is written outside, size and number are bounded",
        tried="crafted archives",
    ),
    Row(
        id="F25",
        section=DATA,
        fault="preprocess and other verbs killed, run twice, or two at once",
        holds="the same bytes or nothing; half a result is never seen",
        tried="real processes, SIGKILL at many moments",
    ),
    Row(
        id="F26",
        section=DATA,
        fault="no terminal, no network, no HOME",
        holds="nothing is asked, and the error comes in less than 10 s",
        tried="commands without input, in an environment of nothing, with a network that leads nowhere",
    ),
    Row(
        id="F27",
        section=DATA,
        fault="graphs with wrong ids, types, values, citations or splits",
        holds="one error that names file, row and value; or counted in the report",
        tried="crafted folders and random damage",
    ),
    Row(
        id="F28",
        section=ORCHESTRATION,
        fault="a run is cancelled, deleted or out of time",
        holds="five minutes later no job and no pod of it is left",
        tried="in-memory cluster: launcher stopped or killed, then the reaper",
        unproven="that Kubeflow Pipelines ends a step as assumed",
    ),
    Row(
        id="F29",
        section=ORCHESTRATION,
        fault="the launcher of a job dies at any of its requests",
        holds="there is exactly one job, which the repeated step takes over",
        tried="in-memory cluster, death before and after each request",
    ),
    Row(
        id="F30",
        section=ORCHESTRATION,
        fault="the API server is away, busy, or cuts connections; the job is deleted by hand",
        holds="what passes is waited for with few requests; what does not is told",
        tried="in-memory cluster that fails by a script",
    ),
    Row(
        id="F31",
        section=ORCHESTRATION,
        fault="the job's condition says other than its result",
        holds="the model decides: without it the step fails, with it the step is well",
        tried="in-memory cluster, every combination",
    ),
    Row(
        id="F32",
        section=ORCHESTRATION,
        fault="a cached step whose files are gone or another's",
        holds="the next step ends at once and says to run with caching off",
        tried="the folders of a run removed or swapped between its steps",
    ),
    Row(
        id="F33",
        section=ORCHESTRATION,
        fault="operator, workflow controller or node start again during a run",
        holds="built to go on: pods come again, workers resume, the step takes its job over",
        unproven="all of it, as only a cluster has them",
    ),
    Row(
        id="F34",
        section=ORCHESTRATION,
        fault="compiled files and manifests that are stale, unknown to a schema or without limits",
        holds="the tests fail",
        tried="committed bytes compared; every object checked against its schema",
    ),
    Row(
        id="F35",
        section=SECURITY,
        fault="hostile checkpoints, models, splits and settings",
        holds="refused, and nothing in them is executed",
        tried="crafted files that would leave a trace; a search of the source for what could run them",
    ),
    Row(
        id="F36",
        section=SECURITY,
        fault="a secret in YAML, arguments, logs, errors or results",
        holds="none is found",
        tried="planted secrets, searched for in all that comes out",
    ),
    Row(
        id="F37",
        section=SECURITY,
        fault="a pod that may do more than it must",
        holds="every pod fits the standard `restricted`, with a read-only root and a user that is not root",
        tried="the rules of the standard, applied to every pod that citeflow makes",
        unproven="the admission of an API server",
    ),
    Row(
        id="F38",
        section=SECURITY,
        fault="rights that are wider than needed",
        holds="launcher and reaper have the rights that they use and no other; workers get no token",
        tried="in-memory cluster that records every call, compared with the Roles",
    ),
    Row(
        id="F39",
        section=SECURITY,
        fault="traffic that nobody needs",
        holds="network policies close it: workers reach each other, and only the steps the internet",
        unproven="that a cluster's network enforces them; the policies' text is tested",
    ),
    Row(
        id="F40",
        section=SECURITY,
        fault="a dependency or base image that was exchanged",
        holds="images install by hash, on a base named by digest",
        tried="the locks and Dockerfiles, checked against each other",
        unproven="lists of contents, provenance and known weaknesses of built images",
    ),
)
"""In the order of docs/faults.md."""
