import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
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
      headline="Each training of citations that succeeds makes a version of the model of its data. Promote the one that others shall rely on; deploy one to have it answer. The candidate is the newest."
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
              Test MRR
            </th>
            <th scope="col">Known as</th>
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
        <span className="remark">None deployed</span>
        {tryIt}
      </div>
    );
  }
  return (
    <div className="deployment">
      <span>
        Version {deployment.version}:{" "}
        <Badge kind={deployment.state} words={sentence(deployment.state)} />
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
  if (state === "preparing") return "Its index is being made.";
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
      <td className="number" data-label="Test MRR">
        {version.score === null ? "–" : score(version.score)}
      </td>
      <td data-label="Known as">
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

/** Make a version the champion; one that is no better than the present one is refused first. */
function PromoteDialog({ model, version, onClose }: DialogProps) {
  const refresh = useRefresh();
  const holder = model.versions.find((each) => each.aliases.includes(CHAMPION));
  const move = useMutation({
    mutationFn: (force: boolean) =>
      put(`${pathOf(model)}/aliases/${CHAMPION}`, { version: version.version, force }),
    onSuccess: async () => {
      await refresh();
      onClose();
    },
  });
  const isRefused = move.error instanceof Problem && move.error.status === 409;
  return (
    <Dialog
      title={`Make version ${version.version} of ${model.name} the champion?`}
      onClose={onClose}
    >
      <p>
        The champion is the version that others rely on. It answers where none is deployed.{" "}
        {holderWords(holder, version)}
      </p>
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
          <button type="button" disabled={move.isPending} onClick={() => move.mutate(false)}>
            Promote
          </button>
        )}
      </div>
    </Dialog>
  );
}

function holderWords(holder: Version | undefined, version: Version): string {
  if (!holder) return "There is none yet.";
  const figures = [holder, version].map(({ score: value }) =>
    value === null ? "not known" : score(value),
  );
  return `Now it is version ${holder.version}, with ${figures[0]}; this one has ${figures[1]}.`;
}

function useRefresh(): () => Promise<void> {
  const client = useQueryClient();
  return () => client.invalidateQueries({ queryKey: queries.models.queryKey });
}
