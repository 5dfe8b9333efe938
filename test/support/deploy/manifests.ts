// Owns Kubernetes manifests as tests read them: the files that a kustomization names, and the check of one object against the
// schema of its kind. The schemas of `kubernetes-models` let unknown fields pass. The API server does not, and neither does
// this check.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as apps from 'kubernetes-models/apps/v1';
import * as autoscaling from 'kubernetes-models/autoscaling/v2';
import * as batch from 'kubernetes-models/batch/v1';
import * as networking from 'kubernetes-models/networking.k8s.io/v1';
import * as policy from 'kubernetes-models/policy/v1';
import * as core from 'kubernetes-models/v1';
import { parse, parseAllDocuments } from 'yaml';

// oxlint-disable-next-line typescript/no-explicit-any -- objects of any kind, whose schemas check their fields
export type Manifest = any;

const groups: Record<string, Record<string, unknown>> = {
  v1: core,
  'apps/v1': apps,
  'autoscaling/v2': autoscaling,
  'batch/v1': batch,
  'networking.k8s.io/v1': networking,
  'policy/v1': policy,
};

export function readYaml(file: string): Manifest {
  return parse(readFileSync(file, 'utf8'));
}

/** All objects of a text with any number of documents. Throws on invalid YAML. */
export function parseManifests(text: string): Manifest[] {
  return parseAllDocuments(text).map((document) => {
    if (document.errors.length > 0) throw document.errors[0]!;
    return document.toJS();
  });
}

/** The objects of the files that `kustomization.yaml` in this folder names as resources, without other folders. */
export function readResources(folder: string): Manifest[] {
  const files: string[] = readYaml(join(folder, 'kustomization.yaml')).resources;
  return files
    .filter((file) => file.endsWith('.yaml'))
    .flatMap((file) => parseManifests(readFileSync(join(folder, file), 'utf8')));
}

/** Throws, with the path, where an object has a wrong value, lacks a field, or has a field that its kind does not know. */
export function checkSchema(manifest: Manifest): void {
  const name = `${manifest.kind} ${manifest.metadata?.name}`;
  const model = groups[manifest.apiVersion]?.[manifest.kind] as { prototype: { validate(): void } } | undefined;
  if (model === undefined) throw new Error(`${name}: no kind ${manifest.kind} is known in ${manifest.apiVersion}`);
  const unread = new Set<string>();
  // the validator reads each field that it knows by name: it does not know a field that it never reads
  const watched = watch(manifest, '', unread);
  try {
    model.prototype.validate.call(watched);
  } catch (cause) {
    throw new Error(`${name}: ${(cause as Error).message}`, { cause });
  }
  if (unread.size > 0) throw new Error(`${name}: unknown ${[...unread].join(', ')}`);
}

function watch(value: unknown, path: string, unread: Set<string>): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const copy: Record<string, unknown> = Array.isArray(value) ? ([] as never) : {};
  for (const [key, child] of Object.entries(value)) {
    unread.add(`${path}/${key}`);
    copy[key] = watch(child, `${path}/${key}`, unread);
  }
  return new Proxy(copy, {
    get(target, key, receiver) {
      if (typeof key === 'string') unread.delete(`${path}/${key}`);
      return Reflect.get(target, key, receiver);
    },
  });
}
