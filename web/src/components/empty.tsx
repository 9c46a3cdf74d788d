import type { ReactNode } from "react";

/** What is said where there is nothing to show yet, with the way on. */
export function Empty({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div className="card empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}
