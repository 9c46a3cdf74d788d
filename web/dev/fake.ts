/**
 * A server that answers as citeflow's does, from made-up data: for `npm run dev`, and for the tests.
 * It checks no more than the page needs to be seen to react.
 */

import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Plugin } from "vite";

import type { Submission } from "../src/api/types";
import { answering } from "../src/models.ts";
import { TICK_MS, type FakeRun } from "./run.ts";
import { formOf, SIZES, uploadOf, World, type Account } from "./world.ts";

/** The policy of the real server. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
  "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const REPORT = `<!doctype html><html lang="en"><meta name="color-scheme" content="light dark">
  <title>Report</title><body style="font-family: system-ui; padding: 2rem"><h1>Report</h1>
  <p>In a real server, the report of the run is here.</p></body></html>`;
const TITLES = [
  "Black holes as strings",
  "String theory on orbifolds",
  "Branes and black holes",
  "Duality of gauge theories",
  "A string model of confinement",
];

class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
    readonly more: { hint?: string; field?: string } = {},
  ) {
    super(detail);
  }
}

interface Call {
  world: World;
  account: Account;
  query: URLSearchParams;
  body: Record<string, any>;
  bytes: number;
  response: ServerResponse;
}

type Handler = (call: Call, ...parts: string[]) => unknown;

/** Handlers by method and path; a `*` is a part of the path that the handler takes. */
const ROUTES: Record<string, Handler> = {
  "GET /me": ({ world, account }) => world.me(account),
  "DELETE /session": ({ response }) => {
    response.setHeader("Set-Cookie", "citeflow_session=; Path=/; Max-Age=0");
  },
  "POST /password": ({ account, body }) => {
    if (account.password !== body.old) throw new Refusal(403, "the old password is wrong");
    account.password = body.new;
  },
  "GET /sizes": () => SIZES,
  "GET /environment": ({ world, account }) => found(world.environment(account), "environment"),
  "PUT /environment": ({ world, account, body }) => {
    account.size = body.size;
    return world.environment(account);
  },
  "DELETE /environment": ({ account }) => {
    account.size = null;
  },
  "GET /form/*": (_, task) => formOf(task === "images" ? "images" : "citation"),
  "POST /runs/preview": ({ body }) => preview(body as Submission),
  "GET /runs": ({ world, query }) => {
    const state = query.get("state");
    const before = 1000 * Number(query.get("before") ?? Infinity);
    const runs = world.runs.map((each) => each.run);
    const asked = runs.filter(
      (run) => (!state || run.state === state) && Date.parse(run.created) < before,
    );
    return { runs: asked.slice(0, limit(query)) };
  },
  "POST /runs": ({ world, account, body }) => {
    if (!account.size)
      throw new Refusal(409, "you have no environment", { hint: "take one first" });
    preview(body as Submission);
    return world.submit(body as Submission, account.name).run;
  },
  "GET /runs/compare": ({ world, query }) => compare(world, query.get("ids")!.split(",")),
  "GET /runs/*": ({ world }, id) => runOf(world, id).run,
  "DELETE /runs/*": ({ world }, id) => {
    world.runs.splice(world.runs.indexOf(runOf(world, id)), 1);
  },
  "POST /runs/*/cancel": ({ world }, id) => {
    runOf(world, id).cancel();
    return runOf(world, id).run;
  },
  "POST /runs/*/resume": ({ world }, id) => {
    runOf(world, id).resume();
    return runOf(world, id).run;
  },
  "GET /uploads": ({ world }) => ({ uploads: world.uploads }),
  "POST /uploads": ({ world, query, bytes }) => {
    const name = query.get("name")!;
    if (name.endsWith(".exe")) {
      const hint = "it reads OpenAlex works, GraphML, or a zip of tables";
      const detail = `${name} is no dataset that citeflow knows: it begins with b'MZ'`;
      throw new Refusal(422, detail, { hint });
    }
    const made = uploadOf(name, bytes, world.uploads.length);
    if (query.get("kind") === "model" && made.kind === "dataset") {
      const hint = "weights come as safetensors: safetensors.torch.save_file writes them";
      const what = "a zip, as torch.save writes it";
      throw new Refusal(422, `neither weights nor code, and never read: ${what}`, { hint });
    }
    world.uploads.unshift(made);
    return made;
  },
  "DELETE /uploads/*": ({ world }, id) => {
    world.uploads.splice(
      world.uploads.findIndex((each) => each.id === id),
      1,
    );
  },
  "GET /models": ({ world }) => ({ models: world.models }),
  "PUT /models/*/aliases/*": ({ world, body }, name, alias) => {
    const versions = modelOf(world, name).versions;
    const version = versions.find((each) => each.version === body.version)!;
    const holder = versions.find((each) => each.aliases.includes(alias));
    if (!body.force && holder && (holder.score ?? 0) > (version.score ?? 0)) {
      const figures = `${version.score?.toFixed(4)} against ${holder.score?.toFixed(4)}`;
      const than = `no better than the champion, version ${holder.version}`;
      const detail = `version ${version.version} is ${than}: test MRR ${figures}`;
      throw new Refusal(409, detail, { hint: "force promotes it all the same" });
    }
    for (const each of versions) each.aliases = each.aliases.filter((one) => one !== alias);
    version.aliases.push(alias);
    return version;
  },
  "PUT /models/*/deployment": ({ world, body }, name) => {
    const made = {
      version: body.version,
      state: "ready",
      detail: "",
      p50: null,
      p99: null,
    } as const;
    modelOf(world, name).deployment = made;
    return made;
  },
  "DELETE /models/*/deployment": ({ world }, name) => {
    modelOf(world, name).deployment = null;
  },
  "GET /try/*/papers": ({ query }) => ({ papers: papersOf(query.get("words") ?? "") }),
  "POST /try/*/citations": ({ world, body }, name) => ({
    version: answering(modelOf(world, name))!.version,
    notes: body.paper
      ? []
      : ["no references: the model is out of its depth, it has text and popularity alone"],
    answers: TITLES.map((title, index) => ({
      id: 4210 + index,
      title,
      year: 1999 - index,
      probability: 0.97 * 0.8 ** index,
      score: 3.5 - index,
      reasons: [
        `cited together with "${TITLES[(index + 1) % 5]}" (${4210 + ((index + 1) % 5)}), which you cite`,
        "text alike: cosine 0.71",
      ],
    })),
  }),
  "GET /users": ({ world }) => ({
    users: [...world.accounts.values()].map((account) => world.userOf(account)),
  }),
  "POST /users": ({ world, account, body }) => {
    if (world.accounts.has(body.name))
      throw new Refusal(409, `there is a user ${body.name} already`);
    world.open(body.name, body.role, null, body.size).last_seen = null;
    world.links.set(`link-${body.name}`, body.name);
    world.note(account.name, "add", `user ${body.name}`, "done");
    return { name: body.name, link: `/setup?token=link-${body.name}` };
  },
  "PATCH /users/*": ({ world, account, body }, name) => {
    Object.assign(found(world.accounts.get(name), "user"), body);
    world.note(account.name, "change", `user ${name}`, "done");
  },
  "DELETE /users/*": ({ world }, name) => {
    world.accounts.delete(name);
  },
  "GET /audit": ({ world, query }) => {
    const before = Number(query.get("before") ?? Infinity);
    return { entries: world.audit.filter((each) => each.id < before).slice(0, limit(query)) };
  },
};

/** Handlers that need no session. */
const OPEN: Record<string, (call: Omit<Call, "account">) => unknown> = {
  "GET /setup": ({ world, query }) => ({
    first_user: world.accounts.size === 0,
    name: world.links.get(query.get("token") ?? "") ?? "",
    oidc: "",
    version: "0.1.0",
  }),
  "POST /setup": ({ world, body, response }) => {
    const known = world.links.get(body.token);
    if (known === undefined) throw new Refusal(403, "the link does not work");
    world.links.delete(body.token);
    const account = world.accounts.get(known) ?? world.open(body.name, "admin", null, null);
    account.password = body.password;
    return logIn(world, account, response);
  },
  "POST /session": ({ world, body, response }) => {
    const account = world.accounts.get(body.name);
    if (account?.password !== body.password) throw new Refusal(401, "name or password is wrong");
    return logIn(world, account!, response);
  },
};

/** Vite's plugin: `/dev/empty` and `/dev/populated` begin anew, `/dev/finish` ends what runs. */
export function fakeServer(): Plugin {
  let world = World.populated();
  const handle = async (request: IncomingMessage, response: ServerResponse, next: () => void) => {
    const url = new URL(request.url ?? "/", "http://localhost");
    response.setHeader("Content-Security-Policy", POLICY);
    if (url.pathname.startsWith("/dev/")) {
      if (url.pathname === "/dev/empty") world = new World();
      else if (url.pathname === "/dev/populated") world = World.populated();
      else world.finish();
      response.end();
    } else if (url.pathname.startsWith("/api/v1/")) await answer(world, request, response, url);
    else next();
  };
  const start = () => setInterval(() => world.tick(), TICK_MS).unref();
  return {
    name: "fake-server",
    configureServer: (server) => {
      start();
      // The development server itself needs inline scripts.
      server.middlewares.use((request, response, next) => {
        if (request.url?.match(/^\/(api|dev)\//)) void handle(request, response, next);
        else next();
      });
    },
    configurePreviewServer: (server) => {
      start();
      server.middlewares.use((request, response, next) => void handle(request, response, next));
    },
  };
}

async function answer(
  world: World,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
): Promise<void> {
  const path = url.pathname.slice("/api/v1".length);
  const content = await read(request);
  const isJson = request.headers["content-type"] === "application/json";
  const body = isJson && content.length ? JSON.parse(content.toString()) : {};
  const call = { world, query: url.searchParams, body, bytes: content.length, response };
  try {
    const open = OPEN[`${request.method} ${path}`];
    if (open) return send(response, 200, open(call));
    const token = /citeflow_session=([^;]+)/.exec(request.headers.cookie ?? "")?.[1] ?? "";
    const account = world.accounts.get(world.sessions.get(token) ?? "");
    if (!account) throw new Refusal(401, "nobody is logged in");
    const [, id, of] = /^\/runs\/([^/]+)\/(events|report\.html)$/.exec(path) ?? [];
    if (id && of === "events") return stream(runOf(world, id), request, response, url.searchParams);
    if (id && of) return report(response);
    const [handler, parts] = routeOf(request.method ?? "GET", path);
    send(response, 200, handler({ ...call, account }, ...parts));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const { status, detail, more } = error;
    send(response, status, { title: detail, status, detail, ...more });
  }
}

async function read(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function routeOf(method: string, path: string): [Handler, string[]] {
  for (const [route, handler] of Object.entries(ROUTES)) {
    const pattern = new RegExp(`^${route.replaceAll("*", "([^/]+)")}$`);
    const match = pattern.exec(`${method} ${path}`);
    if (match) return [handler, match.slice(1).map(decodeURIComponent)];
  }
  throw new Refusal(404, `no such address: ${path}`);
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.statusCode = body === undefined ? 204 : status;
  response.setHeader(
    "Content-Type",
    status < 400 ? "application/json" : "application/problem+json",
  );
  response.end(body === undefined ? undefined : JSON.stringify(body));
}

function stream(
  run: FakeRun,
  request: IncomingMessage,
  response: ServerResponse,
  query: URLSearchParams,
): void {
  let last = Number(request.headers["last-event-id"] ?? query.get("after") ?? 0);
  response.setHeader("Content-Type", "text/event-stream");
  response.write(": hello\n\n");
  const write = () => {
    for (const { id, type, data } of run.events.slice(last)) {
      response.write(`id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
      last = id;
    }
  };
  write();
  const timer = setInterval(write, TICK_MS);
  response.on("close", () => clearInterval(timer));
}

function report(response: ServerResponse): void {
  response.setHeader("Content-Type", "text/html");
  response.setHeader(
    "Content-Security-Policy",
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'",
  );
  response.end(REPORT);
}

function logIn(world: World, account: Account, response: ServerResponse) {
  const token = randomUUID();
  world.sessions.set(token, account.name);
  world.note(account.name, "log in", "", "done");
  response.setHeader("Set-Cookie", `citeflow_session=${token}; Path=/; HttpOnly; SameSite=Strict`);
  return world.me(account);
}

function found<T>(value: T | null | undefined, what: string): T {
  if (value === null || value === undefined) throw new Refusal(404, `no such ${what}`);
  return value;
}

const runOf = (world: World, id: string) =>
  found(
    world.runs.find((each) => each.run.id === id),
    "run",
  );
const modelOf = (world: World, name: string) =>
  found(
    world.models.find((each) => each.name === name),
    "model",
  );
const limit = (query: URLSearchParams) => Number(query.get("limit") ?? 50);

function preview(submission: Submission) {
  for (const field of formOf(submission.task).fields) {
    const value = submission.settings[field.name];
    if (Number(value) > (field.maximum ?? Infinity)) {
      const detail = `${field.name} is at most ${field.maximum}: ${value}`;
      throw new Refusal(422, detail, { field: `settings.${field.name}` });
    }
  }
  const { dataset, workers, settings } = submission;
  const memory = dataset === "ogbl-citation2" ? 9.1e9 * workers : 0.7e9 * workers;
  const fits = memory < 8 * 2 ** 30;
  const lines = Object.entries(settings).map(([name, value]) => `          ${name}: ${value}`);
  const yaml = [
    "apiVersion: kubeflow.org/v1",
    "kind: PyTorchJob",
    "metadata:",
    `  name: ${dataset.replace(/\W+/g, "-")}`,
    "  labels:",
    "    app.kubernetes.io/part-of: citeflow",
    "spec:",
    "  pytorchReplicaSpecs:",
    "    Worker:",
    `      replicas: ${workers}`,
    "      template:",
    "        settings:",
    ...lines,
    "",
  ].join("\n");
  const seconds = 60 * Number(settings["train.minutes"] ?? 0.5) + 12;
  const detail = fits ? "" : "it needs more memory than your environment has; take size L";
  return { yaml, memory, seconds, fits, detail };
}

function compare(world: World, ids: string[]) {
  const runs = ids.map((id) => runOf(world, id));
  const names = [...new Set(runs.flatMap(({ run }) => Object.keys(run.settings)))];
  const score = runs.map(({ run }) => run.score?.value ?? null);
  return {
    runs: runs.map(({ run }) => run),
    rows: [
      { metric: "test MRR", help: "OGB's random candidates", values: score, better: "higher" },
      {
        metric: "recall@20",
        help: "of all older papers",
        values: score.map((value) => value && 0.6 * value),
        better: "higher",
      },
      {
        metric: "median rank",
        help: "of all older papers",
        values: score.map((value) => value && 40 - 30 * value),
        better: "lower",
      },
    ],
    settings: names.map((name) => ({
      name,
      values: runs.map(({ run }) => run.settings[name] ?? null),
    })),
    series: runs.map(({ run, curve }) => ({
      run: run.id,
      metric: "validation MRR",
      points: curve,
    })),
  };
}

function papersOf(words: string) {
  const titles = TITLES.filter((title) => title.toLowerCase().includes(words.toLowerCase()));
  return titles.map((title) => ({ id: 4210 + TITLES.indexOf(title), title, year: 1999 }));
}
