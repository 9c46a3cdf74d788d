import { useMutation } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";

import { Dialog } from "./dialog";
import { ProblemNote } from "./problemNote";

interface Props {
  /** On the button, and the title of the question. */
  action: string;
  question: string;
  children: ReactNode;
  disabled?: boolean;
  isSmall?: boolean;
  act: () => Promise<unknown>;
}

/** A button for what cannot be undone: it asks first, and says so if it failed. */
export function Confirm({ action, question, children, disabled, isSmall, act }: Props) {
  const [isOpen, setOpen] = useState(false);
  const mutation = useMutation({ mutationFn: act, onSuccess: () => setOpen(false) });
  const close = () => {
    setOpen(false);
    mutation.reset();
  };
  return (
    <>
      <button
        type="button"
        className={isSmall ? "plain small" : "plain"}
        disabled={disabled}
        onClick={() => setOpen(true)}
      >
        {action}
      </button>
      {isOpen && (
        <Dialog title={question} onClose={close}>
          <div>{children}</div>
          <ProblemNote error={mutation.error} />
          <div className="actions">
            <button type="button" className="plain" onClick={close}>
              Keep it
            </button>
            <button
              type="button"
              className="danger"
              disabled={mutation.isPending}
              onClick={() => mutation.mutate()}
            >
              {action}
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}
