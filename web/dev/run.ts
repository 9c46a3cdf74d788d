/** A training that is none: it makes the events of one, by formula. */

import type { LogLine, MetricsEvent, ResourcesEvent, Run, Submission } from "../src/api/types";

export const TICK_MS = 250;
const STEPS_A_TICK = 20;
const VALIDATE_EVERY = 5; // ticks
const GIB = 2 ** 30;

export interface Event {
  id: number;
  type: "run" | "metrics" | "resources" | "log";
  data: Run | MetricsEvent | ResourcesEvent | LogLine;
}

export class FakeRun {
  readonly events: Event[] = [];
  readonly curve: [number, number][] = [];
  private ticks = 0;
  private lines = 0;

  /** `number` counts the runs of a world. */
  constructor(
    number: number,
    readonly submission: Submission,
    readonly owner: string,
    private readonly clock: () => number,
    /** Where the score goes to. */
    private readonly best: number,
  ) {
    const { task, dataset, workers, settings, model } = submission;
    this.run = {
      id: `r${String(number).padStart(4, "0")}`,
      name: submission.name || `${dataset.replace(/\W+/g, "-").slice(0, 30)}-${number}`,
      task,
      owner,
      state: "queued",
      detail: "",
      created: this.now(),
      started: null,
      ended: null,
      queue_position: 1,
      score: null,
      spark: [],
      progress: null,
      workers,
      dataset,
      model: model || "structural",
      settings,
      has_report: false,
      can: { cancel: true, resume: false, delete: false, promote: false },
    };
  }

  readonly run: Run;

  private now(): string {
    return new Date(this.clock()).toISOString();
  }

  private get total(): number {
    const minutes = Number(this.submission.settings["train.minutes"] ?? 0.5);
    return Math.max(8, Math.round((minutes * 60_000) / TICK_MS));
  }

  /** Go on for a tick, if the run is at work. */
  tick(): void {
    const { run } = this;
    if (run.state === "queued") this.begin();
    else if (run.state === "stopping")
      this.end("stopped", "you cancelled it. Resume goes on from its checkpoint");
    else if (run.state === "running") this.train();
  }

  private begin(): void {
    this.run.started ??= this.now();
    const progress = { stage: "preprocess", doing: "finding similar papers", seconds: 5 };
    this.change({ state: "running", queue_position: null, detail: "", progress });
    this.log(null, `run ${this.run.name} of ${this.run.dataset}`);
    this.log(null, "preprocess: 20,000 papers, 198,310 citations");
  }

  private train(): void {
    this.ticks += 1;
    const { ticks, total } = this;
    const step = ticks * STEPS_A_TICK;
    const share = ticks / total;
    const noise = Math.sin(step * 12.9898) * 0.5 + Math.sin(step * 4.1) * 0.5;
    const seconds = (ticks * TICK_MS) / 1000;
    const values: Record<string, number> = {
      loss: 0.7 + 4.2 * Math.exp(-5 * share) + 0.06 * noise,
    };
    if (ticks % VALIDATE_EVERY === 0 || ticks === total) {
      const mrr = this.best * (1 - Math.exp(-4.5 * share - 0.2)) + 0.006 * noise;
      values["validation mrr"] = mrr;
      this.curve.push([step, mrr]);
      this.run.spark.push(mrr);
      this.run.score = { name: "validation MRR", value: mrr };
      this.log(
        0,
        `step ${step}: loss ${values.loss!.toFixed(4)}, validation MRR ${mrr.toFixed(4)}`,
      );
    }
    for (let rank = 0; rank < this.run.workers; rank++) {
      if (ticks % 2) this.log(rank, `rank ${rank}: ${(9000 + 400 * noise).toFixed(0)} citations/s`);
    }
    this.add("metrics", { step, seconds, values });
    this.add("resources", this.resources(seconds, noise));
    const progress = {
      stage: "train",
      doing: "training",
      seconds,
      step,
      steps: total * STEPS_A_TICK,
      fraction: share,
      seconds_left: ((total - ticks) * TICK_MS) / 1000,
    };
    if (ticks < total) this.change({ progress });
    else this.end("succeeded", "");
  }

  private resources(seconds: number, noise: number): ResourcesEvent {
    const ranks = Array.from({ length: this.run.workers }, (_, rank) => ({
      rank,
      cores: 0.92 + 0.05 * noise,
      memory: Math.round((0.6 + 0.1 * Math.tanh(seconds / 4)) * GIB),
    }));
    const sum = (key: "cores" | "memory") => ranks.reduce((all, each) => all + each[key], 0);
    return { seconds, cores: sum("cores"), memory: sum("memory"), ranks };
  }

  end(state: "stopped" | "succeeded" | "failed", detail: string): void {
    const isGood = state === "succeeded";
    if (isGood) {
      this.log(null, `publish: report.html, model ${this.run.name}`);
      this.run.score = { name: "test MRR", value: this.run.spark.at(-1) ?? 0 };
    }
    this.run.ended = this.now();
    const can = { cancel: false, resume: !isGood, delete: true, promote: isGood };
    this.change({ state, detail, progress: null, has_report: isGood, can });
  }

  cancel(): void {
    this.change({ state: "stopping", can: { ...this.run.can, cancel: false } });
  }

  resume(): void {
    this.run.ended = null;
    // The steps since the last checkpoint are repeated.
    this.ticks = Math.max(0, this.ticks - 3);
    const can = { cancel: true, resume: false, delete: false, promote: false };
    this.change({ state: "queued", queue_position: 1, detail: "", can });
  }

  private change(part: Partial<Run>): void {
    Object.assign(this.run, part);
    this.add("run", structuredClone(this.run));
  }

  private log(rank: number | null, line: string): void {
    this.lines += 1;
    const time = this.now().slice(11, 19);
    this.add("log", { rank, n: this.lines, line: `${time} ${line}` });
  }

  private add(type: Event["type"], data: Event["data"]): void {
    this.events.push({ id: this.events.length + 1, type, data });
  }
}
