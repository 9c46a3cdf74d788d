/** What the server answers and takes, by the names that the page uses; openapi.d.ts is generated. */

import type { components } from "./openapi";

type Schemas = components["schemas"];

/** A request of which only some fields must be given; the others have defaults. */
type Given<T, K extends keyof T> = Partial<T> & Required<Pick<T, K>>;

export type Setup = Schemas["SetupBody"];
export type Me = Schemas["Me"];
export type Role = Me["role"];

export type Resources = Schemas["Amounts"];
export type Size = Schemas["SizeBody"];
export type SizeName = Size["size"];
export type Environment = Schemas["EnvironmentBody"];

export type Form = Schemas["FormBody"];
export type Task = Form["task"];
export type Field = Schemas["FormField"];
export type Value = Field["default"];
export type Submission = Given<Schemas["Submission"], "task" | "dataset" | "workers" | "settings">;
export type Preview = Schemas["PreviewBody"];

export type Run = Schemas["RunBody"];
export type State = Run["state"];

/** Figures of a step; one that is below the last replaces those beyond it. */
export interface MetricsEvent {
  step: number;
  seconds: number;
  values: Record<string, number>;
}

/** What all ranks use together, and each. */
export interface ResourcesEvent {
  seconds: number;
  cores: number;
  memory: number;
  ranks: { rank: number; cores: number; memory: number }[];
}

export type LogLine = Schemas["LogLine"];
export type Comparison = Schemas["Comparison"];

export type Upload = Schemas["UploadBody"];

export type Model = Schemas["ModelBody"];
export type Version = Schemas["VersionBody"];
export type Deployment = Schemas["DeploymentBody"];

export type Paper = Schemas["PaperBody"];
export type Question = Given<Schemas["CitationsRequest"], "top">;
export type Answers = Schemas["CitationsBody"];
export type Answer = Schemas["Citation"];

export type User = Schemas["UserBody"];
export type AuditEntry = Schemas["AuditEntry"];
