import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { Link } from "react-router";

import { Problem, put, remove } from "../api/client";
import * as queries from "../api/queries";
import type { Deployment, Model, Version } from "../api/types";
import { Badge } from "../components/badge";
import { Confirm } from "../components/confirm";
import { Dialog } from "../components/dialog";
import { Empty } from "../components/empty";
import { Loaded } from "../components/loaded";
import { Page } from "../components/page";
import { ProblemNote } from "../components/problemNote";
import { TextField } from "../components/textField";
import { Ago } from "../components/time";
import { score, sentence, short } from "../format";
import { answering, CHAMPION } from "../models";

const pathOf = (model: Model) => `/models/${encodeURIComponent(model.name)}`;

/** The models that trainings made, by version; what is the champion, and what is deployed. */
export function ModelsPage() {
  const models = useQuery(queries.models);
  return (
    <Page
      title="Models"
      headline="Each training that succeeds makes a version. An alias says which one counts. The deployed one answers questions, else the champion, else the newest."
    >
      <Loaded query={models} what="the models">
        {(all) =>
          all.length ? (
            all.map((model) => <ModelCard key={model.name} model={model} />)
          ) : (
            <Empty title="No model yet">
              <p>The first training that succeeds makes one.</p>
              <Link className="button" to="/new">
                New training
              </Link>
            </Empty>
          )
        }
      </Loaded>
    </Page>
  );
}

function ModelCard({ model }: { model: Model }) {
  const [promoted, setPromoted] = useState<Version | null>(null);
  return (
    <section className="card table-card section">
      <div className="card-head">
        <h2>{model.name}</h2>
        <DeploymentLine model={model} />
      </div>
      <table className="stacked">
        <thead>
          <tr>
            <th scope="col">Version</th>
            <th scope="col">Made by</th>
            <th scope="col" className="number">
              Score
            </th>
            <th scope="col">Aliases</th>
            <th scope="col">
              <span className="unseen">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {model.versions.map((version) => (
            <VersionRow
              key={version.version}
              model={model}
              version={version}
              onPromote={() => setPromoted(version)}
            />
          ))}
        </tbody>
      </table>
      {promoted && (
        <PromoteDialog model={model} version={promoted} onClose={() => setPromoted(null)} />
      )}
    </section>
  );
}

function DeploymentLine({ model }: { model: Model }) {
  const refresh = useRefresh();
  const { deployment } = model;
  const tryIt = answering(model) && (
    <Link className="button plain small" to={`/try/${encodeURIComponent(model.name)}`}>
      Try it
    </Link>
  );
  if (!deployment) {
    return (
      <div className="deployment">
        <span className="remark">Not deployed</span>
        {tryIt}
      </div>
    );
  }
  return (
    <div className="deployment">
      <span>
        Version {deployment.version}: <Badge kind={deployment.state} words={deployment.state} />
        <small>{sentence(deployment.detail) || speed(deployment)}</small>
      </span>
      {tryIt}
      <Confirm
        isSmall
        action="Take down"
        question={`Take down ${model.name}?`}
        act={async () => {
          await remove(`${pathOf(model)}/deployment`);
          await refresh();
        }}
      >
        <p>It is served no longer. Its versions stay, and one of them answers in “Try it”.</p>
      </Confirm>
    </div>
  );
}

/** Write how fast a deployment answers; the figures are seconds. */
function speed({ state, p50, p99 }: Deployment): string {
  if (state !== "ready") return "";
  if (p50 === null || p99 === null) return "It was asked nothing yet.";
  return `Answers in ${short(1000 * p50)} ms, 99 of 100 within ${short(1000 * p99)} ms.`;
}

interface RowProps {
  model: Model;
  version: Version;
  onPromote: () => void;
}

function VersionRow({ model, version, onPromote }: RowProps) {
  const refresh = useRefresh();
  const deploy = useMutation({
    mutationFn: () => put<Deployment>(`${pathOf(model)}/deployment`, { version: version.version }),
    onSuccess: refresh,
  });
  const isDeployed = model.deployment?.version === version.version;
  return (
    <tr>
      <th scope="row">
        Version {version.version}
        <small>
          <Ago iso={version.created} />
        </small>
      </th>
      <td data-label="Made by">
        <Link to={`/runs/${version.run}`}>{version.run_name}</Link>
        <small>{version.dataset}</small>
        {version.has_code && <small>Your own code: it can be neither deployed nor asked.</small>}
      </td>
      <td className="number" data-label="Score">
        {version.score === null ? "–" : score(version.score)}
      </td>
      <td data-label="Aliases">
        {version.aliases.map((alias) => (
          <Badge key={alias} kind={`alias ${alias}`} words={alias} />
        ))}
      </td>
      <td className="number">
        <div className="actions">
          <button
            type="button"
            className="plain small"
            disabled={version.aliases.includes(CHAMPION)}
            onClick={onPromote}
          >
            Promote <span className="unseen">version {version.version}</span>
          </button>
          {!version.has_code && (
            <button
              type="button"
              className="plain small"
              disabled={isDeployed || deploy.isPending}
              onClick={() => deploy.mutate()}
            >
              {isDeployed ? "Deployed" : "Deploy"}{" "}
              <span className="unseen">version {version.version}</span>
            </button>
          )}
        </div>
        <ProblemNote error={deploy.error} />
      </td>
    </tr>
  );
}

interface DialogProps {
  model: Model;
  version: Version;
  onClose: () => void;
}

/** Move an alias; a version that is worse than the one that has it is refused, with both figures. */
function PromoteDialog({ model, version, onClose }: DialogProps) {
  const refresh = useRefresh();
  const [alias, setAlias] = useState(CHAMPION);
  const holder = model.versions.find((each) => each.aliases.includes(alias));
  const move = useMutation({
    mutationFn: (force: boolean) => {
      const path = `${pathOf(model)}/aliases/${encodeURIComponent(alias)}`;
      return put(path, { version: version.version, force });
    },
    onSuccess: async () => {
      await refresh();
      onClose();
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    move.mutate(false);
  };
  const isRefused = move.error instanceof Problem && move.error.status === 409;
  return (
    <Dialog title={`Promote version ${version.version} of ${model.name}`} onClose={onClose}>
      <form onSubmit={submit}>
        <TextField
          label="Alias"
          required
          pattern="[a-z][a-z0-9_\-]*"
          help={`“${CHAMPION}” is what others rely on. ${holderWords(holder, version)}`}
          value={alias}
          onText={(text) => {
            setAlias(text);
            move.reset();
          }}
        />
        <ProblemNote error={move.error} />
        <div className="actions">
          <button type="button" className="plain" onClick={onClose}>
            Leave it
          </button>
          {isRefused ? (
            <button type="button" className="danger" onClick={() => move.mutate(true)}>
              Promote it all the same
            </button>
          ) : (
            <button type="submit" disabled={move.isPending || holder?.version === version.version}>
              Promote
            </button>
          )}
        </div>
      </form>
    </Dialog>
  );
}

function holderWords(holder: Version | undefined, version: Version): string {
  if (!holder) return "No version has this alias.";
  if (holder.version === version.version) return "This version has it already.";
  const figures = [holder, version].map(({ score: value }) =>
    value === null ? "?" : score(value),
  );
  return sentence(
    `version ${holder.version} has it: ${figures[0]}, against ${figures[1]} of this one.`,
  );
}

function useRefresh(): () => Promise<void> {
  const client = useQueryClient();
  return () => client.invalidateQueries({ queryKey: queries.models.queryKey });
}
