import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";

import { get, patch, post, remove } from "../api/client";
import * as queries from "../api/queries";
import type { AuditEntry, Me, Role, SizeName, User } from "../api/types";
import { Badge } from "../components/badge";
import { Confirm } from "../components/confirm";
import { CopyButton } from "../components/copyButton";
import { Dialog } from "../components/dialog";
import { Loaded } from "../components/loaded";
import { Older } from "../components/older";
import { Page } from "../components/page";
import { ProblemNote } from "../components/problemNote";
import { TextField } from "../components/textField";
import { Ago } from "../components/time";
import { bytes, date, fullDate, short } from "../format";

const SIZES: SizeName[] = ["S", "M", "L"];
const PAGE = 100; // entries of the audit that the server sends at a time
const ROLES: Role[] = ["user", "admin"];

const pathOf = (user: User) => `/users/${encodeURIComponent(user.name)}`;

/** Who has an account, what is theirs, what they use of it, and what was done. */
export function AdminPage({ me }: { me: Me }) {
  const users = useQuery(queries.users);
  const [isAdding, setAdding] = useState(false);
  return (
    <Page
      title="Admin"
      actions={
        <button type="button" onClick={() => setAdding(true)}>
          Add a user
        </button>
      }
    >
      <Loaded query={users} what="the users">
        {(all) => (
          <div className="card table-card">
            <table className="stacked">
              <caption>Users</caption>
              <thead>
                <tr>
                  <th scope="col">Name</th>
                  <th scope="col">Role</th>
                  <th scope="col">Size</th>
                  <th scope="col">In use</th>
                  <th scope="col" className="number">
                    Runs
                  </th>
                  <th scope="col" className="number">
                    Last seen
                  </th>
                  <th scope="col">
                    <span className="unseen">Actions</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {all.map((user) => (
                  <UserRow key={user.name} user={user} isMe={user.name === me.name} />
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Loaded>
      {isAdding && <AddDialog onClose={() => setAdding(false)} />}
      <Audit />
    </Page>
  );
}

function useRefresh(): () => Promise<void> {
  const client = useQueryClient();
  return () => client.invalidateQueries({ queryKey: queries.users.queryKey });
}

function UserRow({ user, isMe }: { user: User; isMe: boolean }) {
  const refresh = useRefresh();
  const change = useMutation({
    mutationFn: (part: { role?: Role; size?: SizeName; suspended?: boolean }) =>
      patch(pathOf(user), part),
    onSuccess: refresh,
  });
  const { environment } = user;
  return (
    <tr>
      <th scope="row">
        {user.name}
        {isMe && <small>you</small>}
        {user.suspended && <Badge kind="suspended" words="Suspended" />}
      </th>
      <td data-label="Role">
        <select
          aria-label={`Role of ${user.name}`}
          value={user.role}
          disabled={isMe || change.isPending}
          onChange={(event) => change.mutate({ role: event.target.value as Role })}
        >
          {ROLES.map((role) => (
            <option key={role}>{role}</option>
          ))}
        </select>
      </td>
      <td data-label="Size">
        <select
          aria-label={`Size of ${user.name}`}
          value={environment?.size ?? ""}
          disabled={change.isPending}
          onChange={(event) => change.mutate({ size: event.target.value as SizeName })}
        >
          {!environment && <option value="">none</option>}
          {SIZES.map((size) => (
            <option key={size}>{size}</option>
          ))}
        </select>
      </td>
      <td data-label="In use">
        {environment
          ? `${short(environment.used.cores)} of ${short(environment.cores)} cores, ${bytes(environment.used.memory)}`
          : "–"}
      </td>
      <td className="number" data-label="Runs">
        {user.runs}
      </td>
      <td className="number" data-label="Last seen">
        {user.last_seen ? <Ago iso={user.last_seen} /> : "never"}
      </td>
      <td className="number">
        <div className="actions">
          <button
            type="button"
            className="plain small"
            disabled={isMe || change.isPending}
            onClick={() => change.mutate({ suspended: !user.suspended })}
          >
            {user.suspended ? "Let back in" : "Suspend"} <span className="unseen">{user.name}</span>
          </button>
          <Confirm
            isSmall
            action="Delete"
            question={`Delete ${user.name}?`}
            disabled={isMe}
            act={async () => {
              await remove(pathOf(user));
              await refresh();
            }}
          >
            <p>Their runs, files and models go with them. Nothing brings them back.</p>
          </Confirm>
        </div>
        <ProblemNote error={change.error} />
      </td>
    </tr>
  );
}

/** Make an account, and show the link by which its owner sets the password. */
function AddDialog({ onClose }: { onClose: () => void }) {
  const refresh = useRefresh();
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("user");
  const [size, setSize] = useState<SizeName>("S");
  const add = useMutation({
    mutationFn: () => post<{ name: string; link: string }>("/users", { name, role, size }),
    onSuccess: refresh,
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    add.mutate();
  };
  if (add.isSuccess) {
    const link = new URL(add.data.link, location.href).href;
    return (
      <Dialog title={`${add.data.name} has an account`} onClose={onClose}>
        <p>Give them this link; it is for one use, and they choose a password with it.</p>
        <p className="secret">
          <code>{link}</code> <CopyButton text={link} what="the link" />
        </p>
        <div className="actions">
          <button type="button" onClick={onClose}>
            Done
          </button>
        </div>
      </Dialog>
    );
  }
  return (
    <Dialog title="Add a user" onClose={onClose}>
      <form onSubmit={submit}>
        <TextField
          label="Name"
          required
          pattern="[a-z][a-z0-9\-]*"
          title="Small letters, digits and hyphens"
          autoComplete="off"
          help="Small letters, digits and hyphens."
          value={name}
          onText={setName}
        />
        <div className="row">
          <label className="field">
            Role
            <select value={role} onChange={(event) => setRole(event.target.value as Role)}>
              {ROLES.map((each) => (
                <option key={each}>{each}</option>
              ))}
            </select>
          </label>
          <label className="field">
            Size
            <select value={size} onChange={(event) => setSize(event.target.value as SizeName)}>
              {SIZES.map((each) => (
                <option key={each}>{each}</option>
              ))}
            </select>
          </label>
        </div>
        <ProblemNote error={add.error} />
        <div className="actions">
          <button type="button" className="plain" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" disabled={add.isPending}>
            Add
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Audit() {
  const audit = useInfiniteQuery({
    queryKey: ["audit"],
    queryFn: ({ pageParam }) => get<{ entries: AuditEntry[] }>("/audit", { before: pageParam }),
    initialPageParam: undefined as number | undefined,
    getNextPageParam: ({ entries }) => (entries.length < PAGE ? undefined : entries.at(-1)?.id),
  });
  const entries = audit.data?.pages.flatMap((page) => page.entries) ?? [];
  return (
    <section className="section">
      <h2>What was done</h2>
      <ProblemNote error={audit.error} again={() => audit.refetch()} />
      {audit.isSuccess && !entries.length && <p className="remark">Nothing was done yet.</p>}
      {entries.length > 0 && (
        <div className="card table-card">
          <table className="stacked">
            <thead>
              <tr>
                <th scope="col">When</th>
                <th scope="col">Who</th>
                <th scope="col">What</th>
                <th scope="col">Outcome</th>
              </tr>
            </thead>
            <tbody>
              {entries.map((entry) => (
                <tr key={entry.id}>
                  <td data-label="When">
                    <time dateTime={entry.time} title={fullDate(entry.time)}>
                      {date(entry.time)}
                    </time>
                  </td>
                  <td data-label="Who">{entry.user}</td>
                  <td data-label="What">
                    {entry.action} {entry.object}
                  </td>
                  <td data-label="Outcome">{entry.outcome}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <Older query={audit} />
    </section>
  );
}
