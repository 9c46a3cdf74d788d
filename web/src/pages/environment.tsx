import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { Link, useNavigate } from "react-router";

import { put, remove } from "../api/client";
import * as queries from "../api/queries";
import type { Environment, Resources, Size, SizeName } from "../api/types";
import { Badge } from "../components/badge";
import { Confirm } from "../components/confirm";
import { Loaded } from "../components/loaded";
import { Meter } from "../components/meter";
import { Page } from "../components/page";
import { ProblemNote } from "../components/problemNote";
import { bytes, percent, sentence, whole } from "../format";

const NOTHING: Resources = { cores: 0, memory: 0, disk: 0 };
const STATES = { ready: "Ready", preparing: "Being prepared", suspended: "Suspended" };

const RESOURCES = [
  ["cores", "Cores", whole],
  ["memory", "Memory", bytes],
  ["disk", "Disk", bytes],
] as const;

/** The resources that are one's own: where new users land. */
export function EnvironmentPage() {
  const environment = useQuery(queries.environment);
  const sizes = useQuery(queries.sizes);
  return (
    <Page
      title="Environment"
      headline="The cores, memory and disk that are yours. Your trainings share them; those of others do not take any of it."
      actions={
        environment.data && (
          <Link className="button" to="/new">
            New training
          </Link>
        )
      }
    >
      <Loaded query={environment} what="your environment">
        {(mine) => (
          <>
            {mine ? <Mine environment={mine} /> : null}
            <Loaded query={sizes} what="the sizes">
              {(all) => <SizeForm key={mine?.size} sizes={all} mine={mine} />}
            </Loaded>
          </>
        )}
      </Loaded>
    </Page>
  );
}

function Mine({ environment }: { environment: Environment }) {
  const client = useQueryClient();
  const { state, detail, size, used, links } = environment;
  return (
    <section className="card">
      <div className="card-head">
        <h2>
          Yours: size {size} <Badge kind={state} words={STATES[state]} />
        </h2>
        <Confirm
          isSmall
          action="Remove"
          question="Remove your environment?"
          act={async () => {
            await remove("/environment");
            await refresh(client);
          }}
        >
          <p>
            Its cores and memory go back to all. It has to be empty: delete its runs and uploads
            first.
          </p>
        </Confirm>
      </div>
      {detail && <p className="remark">{sentence(detail)}</p>}
      <div className="meters">
        {RESOURCES.map(([key, label, format]) => (
          <Meter
            key={key}
            label={label}
            value={used[key]}
            most={environment[key]}
            format={format}
          />
        ))}
      </div>
      {links.length > 0 && (
        <ul className="links">
          {links.map(({ name, url }) => (
            <li key={name}>
              <a href={url} target="_blank" rel="noreferrer">
                {name}
              </a>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function SizeForm({ sizes, mine }: { sizes: Size[]; mine: Environment | null }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const [chosen, setChosen] = useState<SizeName>(mine?.size ?? "S");
  const take = useMutation({
    mutationFn: () => put<Environment>("/environment", { size: chosen }),
    onSuccess: async () => {
      await refresh(client);
      if (!mine) navigate("/new");
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    take.mutate();
  };
  const isSame = mine?.size === chosen;
  return (
    <form onSubmit={submit} className="section">
      <fieldset>
        <legend>
          <h2>{mine ? "Change the size" : "Choose a size"}</h2>
        </legend>
        <p className="remark">
          {mine
            ? "Running trainings go on; the new size counts for the next."
            : "Small is enough for a first training, which comes next. You can change it at any time."}
        </p>
        <div className="size-cards">
          {sizes.map((size) => (
            <SizeCard
              key={size.size}
              size={size}
              largest={sizes.at(-1) ?? size}
              used={mine?.used ?? NOTHING}
              isChosen={size.size === chosen}
              onChoose={() => setChosen(size.size)}
            />
          ))}
        </div>
      </fieldset>
      <ProblemNote error={take.error} />
      <div className="actions start">
        <button type="submit" disabled={take.isPending || isSame}>
          {mine
            ? isSame
              ? `Size ${chosen} is yours`
              : `Change to ${chosen}`
            : `Take size ${chosen}`}
        </button>
      </div>
    </form>
  );
}

interface CardProps {
  size: Size;
  largest: Size;
  used: Resources;
  isChosen: boolean;
  onChoose: () => void;
}

const NAMES: Record<SizeName, string> = { S: "Small", M: "Medium", L: "Large" };

/** A size; the bars compare it with the largest one. */
function SizeCard({ size, largest, used, isChosen, onChoose }: CardProps) {
  const isTooSmall = RESOURCES.some(([key]) => used[key] > size[key]);
  return (
    <label className="size-card card">
      <span className="size-name">
        <input
          type="radio"
          name="size"
          value={size.size}
          checked={isChosen}
          disabled={isTooSmall}
          onChange={onChoose}
        />
        <b>{NAMES[size.size]}</b> <span className="remark">{size.size}</span>
      </span>
      {RESOURCES.map(([key, label, format]) => (
        <span key={key} className="share">
          <span>{label}</span>
          <span>{format(size[key])}</span>
          <i aria-hidden="true">
            <i style={{ width: percentOf(size[key], largest[key]) }} />
            <i className="is-used" style={{ width: percentOf(used[key], largest[key]) }} />
          </i>
        </span>
      ))}
      <span className="remark">{usedWords(size, used, isTooSmall)}</span>
    </label>
  );
}

const percentOf = (part: number, all: number) => `${Math.min(100, (100 * part) / (all || 1))}%`;

function usedWords(size: Size, used: Resources, isTooSmall: boolean): string {
  if (isTooSmall) return "Less than what you use now.";
  const share = Math.max(...RESOURCES.map(([key]) => used[key] / (size[key] || 1)));
  return share > 0 ? `You use up to ${percent(share)} of it now.` : "None of it in use.";
}

/** The environment is also a part of who one is. */
async function refresh(client: ReturnType<typeof useQueryClient>): Promise<void> {
  await Promise.all([
    client.invalidateQueries({ queryKey: queries.environment.queryKey }),
    client.invalidateQueries({ queryKey: queries.me.queryKey }),
  ]);
}
