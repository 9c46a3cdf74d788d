import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";
import { Link, NavLink } from "react-router";

import { remove } from "../api/client";
import * as queries from "../api/queries";
import type { Me } from "../api/types";

const PLACES = [
  ["/environment", "Environment"],
  ["/new", "New training"],
  ["/runs", "Runs"],
  ["/models", "Models"],
  ["/try", "Try it"],
] as const;

const BRAND = (
  <>
    <img src="/icon.svg" alt="" width="26" height="26" />
    citeflow
  </>
);

interface Props {
  me: Me | null;
  /** Whether there is no other page. */
  isAlone?: boolean;
  children: ReactNode;
}

/** What is around every page: the skip link, the places, who is logged in, and the licences. */
export function Shell({ me, isAlone = false, children }: Props) {
  return (
    <>
      <a className="skip" href="#content">
        Skip to the content
      </a>
      <header className="top">
        {isAlone ? (
          <span className="brand">{BRAND}</span>
        ) : (
          <Link className="brand" to="/">
            {BRAND}
          </Link>
        )}
        {me && <Places me={me} />}
      </header>
      <main id="content" tabIndex={-1}>
        {children}
      </main>
      <footer>
        <a href="/licenses.txt">Licences</a>
      </footer>
    </>
  );
}

function Places({ me }: { me: Me }) {
  const [isOpen, setOpen] = useState(false);
  const places = me.role === "admin" ? [...PLACES, ["/admin", "Admin"] as const] : PLACES;
  return (
    <>
      <button
        type="button"
        className="plain menu"
        aria-expanded={isOpen}
        aria-controls="places"
        onClick={() => setOpen(!isOpen)}
      >
        Menu
      </button>
      <nav id="places" aria-label="Pages" className={isOpen ? "is-open" : ""}>
        {places.map(([path, words]) => (
          <NavLink key={path} to={path} onClick={() => setOpen(false)}>
            {words}
          </NavLink>
        ))}
        <Account me={me} />
      </nav>
    </>
  );
}

function Account({ me }: { me: Me }) {
  const client = useQueryClient();
  const leaving = useMutation({
    mutationFn: () => remove("/session"),
    onSettled: () => {
      // What is on the page watches the entry of `me`: with it gone, nothing would change.
      client.setQueryData(queries.me.queryKey, null);
      client.removeQueries({ predicate: ({ queryKey }) => queryKey[0] !== queries.me.queryKey[0] });
    },
  });
  return (
    <div className="account">
      <NavLink to="/password" title="Change the password">
        {me.name}
      </NavLink>
      <button type="button" className="plain small" onClick={() => leaving.mutate()}>
        Log out
      </button>
    </div>
  );
}
