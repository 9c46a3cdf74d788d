/** What the fake server knows: accounts, files, runs and models, all made up. */

import type {
  AuditEntry,
  Environment,
  Form,
  Me,
  Model,
  Resources,
  Role,
  Size,
  SizeName,
  Submission,
  Task,
  Upload,
  User,
} from "../src/api/types";
import { FakeRun } from "./run.ts";

const GIB = 2 ** 30;

export const SIZES: Size[] = [
  { size: "S", cores: 2, memory: 4 * GIB, disk: 10 * GIB },
  { size: "M", cores: 4, memory: 8 * GIB, disk: 40 * GIB },
  { size: "L", cores: 8, memory: 24 * GIB, disk: 160 * GIB },
];

export interface Account {
  name: string;
  role: Role;
  password: string | null;
  size: SizeName | null;
  created: string;
  last_seen: string | null;
  suspended: boolean;
}

export class World {
  readonly accounts = new Map<string, Account>();
  readonly links = new Map<string, string>([["first", ""]]);
  readonly sessions = new Map<string, string>();
  readonly uploads: Upload[] = [];
  readonly runs: FakeRun[] = [];
  readonly models: Model[] = [];
  readonly audit: AuditEntry[] = [];
  private submitted = 0;

  /** With sample accounts, runs and a model; `ada` has the password `citations`. */
  static populated(): World {
    const world = new World();
    world.open("ada", "admin", "citations", "M");
    world.open("grace", "user", "citations", "S");
    world.open("linus", "user", null, null);
    world.accounts.get("linus")!.last_seen = null;
    for (const [name, bytes] of [
      ["hepth.zip", 6_210_400],
      ["gcn.py", 912],
      ["first.safetensors", 1_184_000],
    ] as const)
      world.uploads.push(uploadOf(name, bytes, world.uploads.length));
    const day = 86_400_000;
    world.finished("hepth-first", "hepth.zip", 0.71, Date.now() - 3 * day, {});
    world.finished("synthetic-deep", "synthetic", 0.79, Date.now() - day, {
      "model.num_layers": 3,
    });
    world.failed("board-try", Date.now() - day / 2);
    world.finished("synthetic-wide", "synthetic", 0.83, Date.now() - day / 12, {
      "model.hidden_channels": 256,
      "train.lr": 0.02,
    });
    world.finished("own-gcn", "synthetic", 0.74, Date.now() - day / 24, {
      "model.code": "upload:u2",
    });
    world.models[0]!.versions.at(-1)!.aliases.push("champion");
    world.models[0]!.deployment = {
      version: 1,
      state: "ready",
      detail: "",
      p50: 0.0184,
      p99: 0.047,
    };
    world.note("ada", "submit", "run synthetic-wide", "done");
    world.note("grace", "log in", "", "wrong password");
    return world;
  }

  open(name: string, role: Role, password: string | null, size: SizeName | null): Account {
    const now = new Date().toISOString();
    const account = { name, role, password, size, created: now, last_seen: now, suspended: false };
    this.accounts.set(name, account);
    return account;
  }

  note(user: string, action: string, object: string, outcome: string): void {
    const time = new Date().toISOString();
    this.audit.unshift({ id: this.audit.length + 1, time, user, action, object, outcome });
  }

  submit(submission: Submission, owner: string, clock = Date.now, best?: number): FakeRun {
    this.submitted += 1;
    const reached = best ?? 0.7 + 0.02 * (this.submitted % 5);
    const run = new FakeRun(this.submitted, submission, owner, clock, reached);
    const file = this.uploads.find((each) => submission.dataset === `upload:${each.id}`);
    if (file) run.run.dataset = file.name;
    const model = this.uploads.find((each) =>
      Object.values(submission.settings).includes(`upload:${each.id}`),
    );
    if (model) run.run.model = model.name;
    this.runs.unshift(run);
    return run;
  }

  tick(): void {
    for (const run of this.runs) {
      const wasRunning = run.run.state === "running";
      run.tick();
      if (wasRunning && run.run.state === "succeeded") this.register(run);
    }
  }

  /** Let all runs train to their end at once. */
  finish(): void {
    while (this.runs.some(({ run }) => run.state === "queued" || run.state === "running"))
      this.tick();
  }

  private finished(
    name: string,
    dataset: string,
    best: number,
    at: number,
    settings: Submission["settings"],
  ): void {
    const submission: Submission = { task: "citation", name, dataset, workers: 2, settings };
    let now = at;
    const run = this.submit(submission, "ada", () => (now += 900), best);
    while (run.run.state !== "succeeded") run.tick();
    this.register(run);
  }

  private failed(name: string, at: number): void {
    const submission: Submission = {
      task: "citation",
      name,
      dataset: "ogbl-citation2",
      workers: 2,
      settings: {},
    };
    let now = at;
    const run = this.submit(submission, "ada", () => (now += 900));
    for (let tick = 0; tick < 20; tick++) run.tick();
    run.end("failed", "preprocess: needs 9.1 GiB of memory, and 8 GiB are yours");
  }

  private register({ run }: FakeRun): void {
    const [task, name] = [run.task, run.task === "citation" ? "citation" : "images"] as const;
    let model = this.models.find((each) => each.name === task);
    if (!model) this.models.push((model = { name, versions: [], deployment: null }));
    const score = run.score?.value ?? 0;
    model.versions.unshift({
      version: model.versions.length + 1,
      run: run.id,
      run_name: run.name,
      created: run.ended ?? run.created,
      dataset: run.dataset,
      scores: { ogb: score },
      score,
      aliases: [],
      has_code: "model.code" in run.settings,
    });
  }

  used(owner: string): Resources {
    const active = this.runs.filter(
      ({ run }) => run.owner === owner && ["running", "stopping"].includes(run.state),
    );
    const cores = active.reduce((all, { run }) => all + run.workers, 0);
    return { cores, memory: 0.7 * GIB * cores, disk: 1.4 * GIB };
  }

  environment({ name, size }: Account): Environment | null {
    const found = SIZES.find((each) => each.size === size);
    if (!found) return null;
    const used = this.used(name);
    return {
      ...found,
      used,
      state: "ready",
      detail: "",
      links: [{ name: "TensorBoard", url: "/" }],
    };
  }

  userOf(account: Account): User {
    const { name, role, created, last_seen, suspended } = account;
    const runs = this.runs.filter(({ run }) => run.owner === name).length;
    return {
      name,
      role,
      created,
      last_seen,
      suspended,
      runs,
      environment: this.environment(account),
    };
  }

  me(account: Account): Me {
    return { name: account.name, role: account.role, environment: this.environment(account) };
  }
}

const VERDICTS: Record<Upload["kind"], Upload["verdict"]> = {
  dataset: {
    format: "citation folder",
    summary: "27,770 papers, 352,807 citations, with titles, abstracts and dates",
    warnings: ["12 citations of papers that are not in the list are dropped"],
    papers: 27_770,
    citations: 352_807,
    sha256: "",
    tensors: [],
  },
  weights: {
    format: "weights (safetensors)",
    summary: "18 tensors, 296,065 parameters",
    warnings: [],
    sha256: "3f".repeat(32),
    parameters: 296_065,
    tensors: Array.from({ length: 18 }, (_, n) => ({
      name: `encoder.layers.${n}.weight`,
      shape: [128, 128],
      type: "F32",
    })),
  },
  code: {
    format: "code (Python)",
    summary: "24 lines with build(settings)",
    warnings: [],
    sha256: "a7".repeat(32),
    tensors: [],
  },
};

export function uploadOf(name: string, bytes: number, n: number): Upload {
  const kind = name.endsWith(".py")
    ? "code"
    : name.endsWith(".safetensors")
      ? "weights"
      : "dataset";
  const created = new Date().toISOString();
  return { id: `u${n + 1}`, name, kind, bytes, created, verdict: VERDICTS[kind] };
}

const LIMITS = {
  minimum: null,
  maximum: null,
  exclusive_minimum: null,
  exclusive_maximum: null,
  choices: [],
};

const PRESETS: Form["presets"] = [
  {
    name: "seed",
    help: "The student model, to compare with.",
    settings: { "model.hidden_channels": 256, "train.loss": "bce" },
  },
  { name: "board", help: "For the leaderboard.", settings: { "train.epochs": 50 } },
];

export function formOf(task: Task): Form {
  const isCitation = task === "citation";
  return {
    task,
    max_workers: 4,
    code_problem: isCitation ? "" : "bubblewrap is not installed",
    presets: [
      { name: "default", help: "What is best for most data.", settings: {} },
      ...(isCitation ? PRESETS : []),
    ],
    datasets: isCitation
      ? [
          {
            name: "synthetic",
            help: "A citation graph that is made on the spot; a minute is enough for it.",
          },
          {
            name: "ogbl-citation2",
            help: "2,927,963 papers and 30,561,187 citations of the Open Graph Benchmark.",
          },
        ]
      : [{ name: "garments", help: "Drawn garments in ten classes, made on the spot." }],
    models: isCitation
      ? [
          { name: "structural", help: "GraphSAGE joined with the paths between two papers." },
          { name: "mlp", help: "GraphSAGE with an MLP on the product of two embeddings." },
          { name: "dot", help: "GraphSAGE with a dot product: small and fast." },
        ]
      : [{ name: "batch_norm", help: "Two convolutions and a hidden layer with batch norm." }],
    fields: [
      {
        ...LIMITS,
        name: "train.minutes",
        label: "Minutes",
        help: "Time to train in minutes, validation included; 0 trains for the epochs.",
        group: "Training",
        type: "number",
        default: 0.5,
        minimum: 0,
        advanced: false,
      },
      {
        ...LIMITS,
        name: "train.lr",
        label: "Learning rate",
        help: "Highest learning rate of Adam; it warms up, then falls along a cosine.",
        group: "Training",
        type: "number",
        default: 0.01,
        exclusive_minimum: 0,
        advanced: false,
      },
      {
        ...LIMITS,
        name: "train.epochs",
        label: "Epochs",
        help: "Passes over the training citations; a fraction is allowed.",
        group: "Training",
        type: "number",
        default: 10,
        exclusive_minimum: 0,
        advanced: false,
      },
      {
        ...LIMITS,
        name: "train.seed",
        label: "Seed",
        help: "Seed of weights, batches, negatives and dropout.",
        group: "Training",
        type: "integer",
        default: 0,
        minimum: 0,
        advanced: true,
      },
      {
        ...LIMITS,
        name: "train.loss",
        label: "Loss",
        help: "InfoNCE (softmax of a citation against the shared negatives), or binary cross-entropy.",
        group: "Training",
        type: "choice",
        default: "info_nce",
        choices: ["info_nce", "bce"],
        advanced: true,
      },
      {
        ...LIMITS,
        name: "model.hidden_channels",
        label: "Hidden channels",
        help: "Channels of every hidden layer and of the embedding.",
        group: "Model",
        type: "integer",
        default: 128,
        minimum: 1,
        maximum: 4096,
        advanced: false,
      },
      {
        ...LIMITS,
        name: "model.num_layers",
        label: "Layers",
        help: "Number of SAGEConv layers; 0 leaves the graph out.",
        group: "Model",
        type: "integer",
        default: 2,
        minimum: 0,
        maximum: 10,
        advanced: false,
      },
      {
        ...LIMITS,
        name: "synthetic.num_papers",
        label: "Number of papers",
        help: "Number of papers; ogbl-citation2 has 2,927,963.",
        group: "synthetic",
        type: "integer",
        default: 20000,
        minimum: 100,
        advanced: false,
      },
      {
        ...LIMITS,
        name: "model.normalize",
        label: "Normalize",
        help: "L2-normalize the output of every layer.",
        group: "Model",
        type: "bool",
        default: false,
        advanced: true,
      },
    ],
  };
}
