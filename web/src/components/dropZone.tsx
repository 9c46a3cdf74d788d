import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useId, useRef, useState, type DragEvent } from "react";

import { remove, upload } from "../api/client";
import * as queries from "../api/queries";
import type { Upload } from "../api/types";
import { bytes, percent, sentence } from "../format";
import { Confirm } from "./confirm";
import { Bar } from "./meter";
import { ProblemNote } from "./problemNote";
import { Ago } from "./time";

interface Props {
  kind: Upload["kind"];
  /** What can be given, in words. */
  help: string;
  chosen: string;
  onChoose: (id: string) => void;
  /** Takes what was given, whose kind may be another one; by default it is chosen. */
  onMade?: (made: Upload) => void;
}

/** A place for a file, with how far it is and the verdict on it; below, what was given before. */
export function DropZone({ kind, help, chosen, onChoose, onMade }: Props) {
  const client = useQueryClient();
  const uploads = useQuery(queries.uploads);
  const known = uploads.data?.filter((each) => each.kind === kind) ?? [];
  const [share, setShare] = useState(0);
  const [isOver, setOver] = useState(false);
  const stop = useRef<AbortController>(null);
  const input = useRef<HTMLInputElement>(null);
  const inputId = useId();
  const refresh = () => client.invalidateQueries({ queryKey: queries.uploads.queryKey });

  const sending = useMutation({
    mutationFn: (file: File) => {
      stop.current = new AbortController();
      setShare(0);
      return upload<Upload>(
        "/uploads",
        { name: file.name, kind: kind === "dataset" ? kind : "model" },
        file,
        setShare,
        stop.current.signal,
      );
    },
    onSuccess: async (made) => {
      await refresh();
      if (onMade) onMade(made);
      else onChoose(made.id);
    },
  });
  const send = (files: FileList | null) => {
    const file = files?.[0];
    if (file) sending.mutate(file);
    if (input.current) input.current.value = "";
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    send(event.dataTransfer.files);
  };

  return (
    <div>
      <div
        className={isOver ? "drop is-over" : "drop"}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={drop}
      >
        <input
          ref={input}
          id={inputId}
          type="file"
          disabled={sending.isPending}
          onChange={(event) => send(event.target.files)}
        />
        <label htmlFor={inputId}>
          <b>Drop a file here, or choose one</b>
          <span>{help}</span>
        </label>
      </div>
      {sending.isPending && (
        <div className="sending" role="status">
          <span>{share < 1 ? `Sending ${sending.variables.name}` : "Looking into it"}</span>
          <Bar label="Upload" share={share} words={percent(share)} as="progressbar" />
          <button type="button" className="plain small" onClick={() => stop.current?.abort()}>
            Cancel
          </button>
        </div>
      )}
      <ProblemNote error={sending.error ?? uploads.error} />
      {known.length > 0 && (
        <ul className="choices">
          {known.map((each) => (
            <li key={each.id}>
              <UploadChoice
                upload={each}
                isChosen={each.id === chosen}
                onChoose={onChoose}
                onRemoved={async () => {
                  await refresh();
                  if (each.id === chosen) onChoose("");
                }}
              />
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

interface ChoiceProps {
  upload: Upload;
  isChosen: boolean;
  onChoose: (id: string) => void;
  onRemoved: () => Promise<void>;
}

function UploadChoice({ upload: { id, name, kind, ...file }, isChosen, ...on }: ChoiceProps) {
  return (
    <div className="choice">
      <label>
        <input
          type="radio"
          name={`upload of ${kind}`}
          checked={isChosen}
          onChange={() => on.onChoose(id)}
        />
        <span>
          <b>{name}</b>
          <span className="verdict">{sentence(file.verdict.summary)}</span>
          {file.verdict.warnings.map((warning) => (
            <span key={warning} className="warning">
              {sentence(warning)}
            </span>
          ))}
          <small>
            {file.verdict.format && `${file.verdict.format} · `}
            {bytes(file.bytes)} · <Ago iso={file.created} />
          </small>
          {isChosen && file.verdict.tensors.length > 0 && <Tensors {...file.verdict} />}
        </span>
      </label>
      <Confirm
        isSmall
        action="Delete"
        question={`Delete ${name}?`}
        act={async () => {
          await remove(`/uploads/${encodeURIComponent(id)}`);
          await on.onRemoved();
        }}
      >
        <p>
          {kind === "dataset"
            ? "Runs that were made with it stay; they cannot be resumed."
            : "Runs that were made with it keep a copy."}
        </p>
      </Confirm>
    </div>
  );
}

const MOST_TENSORS = 12;

function Tensors({ tensors }: Pick<Upload["verdict"], "tensors">) {
  const shown = tensors.slice(0, MOST_TENSORS);
  return (
    <small className="tensors">
      {shown.map(({ name, shape, type }) => `${name} [${shape.join(", ")}] ${type}`).join("\n")}
      {tensors.length > shown.length && "\n…"}
    </small>
  );
}
