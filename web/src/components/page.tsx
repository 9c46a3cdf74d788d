import { useEffect, useRef, type ReactNode } from "react";
import { useLocation } from "react-router";

interface Props {
  title: string;
  eyebrow?: ReactNode;
  headline?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}

/** The frame of a page; its heading takes the focus when a link led here. */
export function Page({ title, eyebrow, headline, actions, children }: Props) {
  const { key, pathname } = useLocation();
  const heading = useRef<HTMLHeadingElement>(null);
  const wasFollowed = key !== "default";
  useEffect(() => {
    if (wasFollowed) heading.current?.focus();
  }, [pathname, wasFollowed]);

  return (
    <>
      <title>{`${title} · citeflow`}</title>
      <header className="page-head">
        <div>
          {eyebrow && <p className="eyebrow">{eyebrow}</p>}
          <h1 ref={heading} tabIndex={-1}>
            {title}
          </h1>
          {headline && <p className="headline">{headline}</p>}
        </div>
        {actions && <div className="actions">{actions}</div>}
      </header>
      {children}
    </>
  );
}
