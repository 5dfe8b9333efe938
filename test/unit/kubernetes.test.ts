// The Kubernetes manifests: valid by their schemas, and consistent with Plank's settings and with each other.

import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import { Registry } from 'prom-client';
import { describe, expect, test } from 'vitest';
import { findProgram } from '#deploy/local/process.ts';
import { gatewaySchema, listenerSchema, migrateSchema, readConfig } from '#shared/process/config.ts';
import { gatewayMetrics } from '#shared/process/metrics.ts';
import { checkSchema, type Manifest, parseManifests, readResources, readYaml } from '../support/deploy/manifests.ts';

const root = join(import.meta.dirname, '../..');
const folder = join(root, 'deploy/kubernetes');
const base = join(folder, 'base');
const manifests = readResources(base);
const settings = parseEnv(readFileSync(join(base, 'plank.env'), 'utf8')) as Record<string, string>;
const schemas = { listener: listenerSchema, gateway: gatewaySchema, migrate: migrateSchema };
type Component = keyof typeof schemas;

const only = (kind: string): Manifest[] => manifests.filter((manifest) => manifest.kind === kind);
const deployment = (component: Component): Manifest =>
  only('Deployment').find(({ metadata }) => metadata.labels['app.kubernetes.io/component'] === component);
const workloads: { component: Component; template: Manifest; pod: Manifest; container: Manifest }[] = [
  ...only('Job'),
  ...only('Deployment'),
].map(({ metadata, spec: { template } }) => ({
  component: metadata.labels['app.kubernetes.io/component'],
  template,
  pod: template.spec,
  container: template.spec.containers[0],
}));
const matches = (selector: Manifest, labels: Manifest): boolean =>
  Object.entries(selector.matchLabels).every(([name, value]) => labels[name] === value);

describe('the files', () => {
  test('the kustomizations name every file', () => {
    const { resources, configMapGenerator } = readYaml(join(base, 'kustomization.yaml'));
    const envs: string[] = configMapGenerator.flatMap(({ envs }: Manifest) => envs);
    expect(new Set(readdirSync(base))).toEqual(new Set(['kustomization.yaml', ...resources, ...envs]));

    const example = readYaml(join(folder, 'example/kustomization.yaml'));
    const named = new Set([...example.resources, ...example.patches.map(({ path }: Manifest) => path)]);
    expect(named.delete('../base')).toBe(true);
    expect(new Set(readdirSync(join(folder, 'example')))).toEqual(named.add('kustomization.yaml'));
  });

  test.each([...manifests, ...readResources(join(folder, 'example'))])(
    '$kind $metadata.name is valid by the schema of its kind',
    (manifest) => checkSchema(manifest),
  );

  test('the schema check refuses a misspelt field, a wrong value, and an unknown kind', () => {
    const changed = (change: (copy: Manifest) => void): Manifest => {
      const copy = structuredClone(deployment('gateway'));
      change(copy);
      return () => checkSchema(copy);
    };
    expect(changed(() => {})).not.toThrow();
    const probe = (copy: Manifest) => copy.spec.template.spec.containers[0].readinessProbe;
    expect(changed((copy) => (probe(copy).timeoutsSeconds = 3))).toThrow(/readinessProbe\/timeoutsSeconds/);
    expect(changed((copy) => (probe(copy).timeoutSeconds = '3'))).toThrow(/timeoutSeconds must be integer/);
    expect(changed((copy) => delete copy.spec.selector)).toThrow(/selector/);
    expect(changed((copy) => (copy.kind = 'Deploymint'))).toThrow(/no kind Deploymint/);
  });

  const kubectl = findProgram('kubectl');
  test.runIf(kubectl !== undefined)('kustomize builds the manifests, and the result is valid', () => {
    const built = (name: string) =>
      parseManifests(execFileSync(kubectl!, ['kustomize', join(folder, name)], { encoding: 'utf8' }));
    for (const manifest of [...built('base'), ...built('example')]) checkSchema(manifest);
    const example = built('example');
    const find = (kind: string): Manifest[] => example.filter((manifest) => manifest.kind === kind);
    const images = [...find('Deployment'), ...find('Job')].map(({ spec }) => spec.template.spec.containers[0].image);
    expect(new Set(images)).toEqual(new Set(['registry.example.com/plank:0.1.0']));
    expect(find('ConfigMap')[0].data).toMatchObject({ ...settings, CORS_ORIGINS: 'https://app.example.com' });
    for (const { spec } of find('Ingress')) expect(spec.tls[0].hosts).toEqual([spec.rules[0].host]);
    // a network policy that an overlay's patch no longer fits would be open to any address again
    for (const { spec } of find('NetworkPolicy')) {
      for (const { to } of spec.egress) expect(to).toHaveLength(1);
    }
    for (const { kind, metadata } of example) if (kind !== 'Namespace') expect(metadata.namespace).toBe('plank');
  });
});

describe('settings', () => {
  test('the settings are variables that Plank knows, with values that it takes', () => {
    const known = new Set(Object.values(schemas).flatMap((schema) => Object.keys(schema.shape)));
    for (const { container } of workloads) {
      for (const { name } of container.env) expect(known).toContain(name);
    }
    for (const name of Object.keys(settings)) expect(known).toContain(name);
    const secrets = { DATABASE_URL: 'postgres://plank@postgres/plank', REDIS_URL: 'redis://redis' };
    for (const schema of [listenerSchema, gatewaySchema])
      expect(() =>
        readConfig(schema, { ...settings, ...secrets, NODE_NAME: 'plank-gateway-7d9f8b6c5d-x2x4q' }),
      ).not.toThrow();
  });

  test.each(workloads)('$component gets what it requires, and runs a file that exists', ({ component, container }) => {
    const given = Object.fromEntries(container.env.map(({ name }: Manifest) => [name, 'postgres://given']));
    expect(() => readConfig(schemas[component], { DATABASE_URL: given.DATABASE_URL })).not.toThrow();
    expect(existsSync(join(root, container.command.at(-1)))).toBe(true);
    if (component === 'migrate') return;
    expect(container.env).toContainEqual({
      name: 'NODE_NAME',
      valueFrom: { fieldRef: { fieldPath: 'metadata.name' } },
    });
    // their main files refuse to start without it
    expect(given).toHaveProperty('REDIS_URL');
    expect(container.envFrom).toEqual([{ configMapRef: { name: 'plank' } }]);
  });

  test("the operators' port is open on the pod's own loopback only", () => {
    const config = readConfig(gatewaySchema, { DATABASE_URL: 'postgres://given', ...settings });
    expect(config.OPS_HOST).toBe('127.0.0.1');
    expect(config.OPS_PORT).toBeGreaterThan(0);
  });

  test('a Postgres of the compose file has connections enough for all replicas', () => {
    const compose = readFileSync(join(root, 'docker-compose.yml'), 'utf8');
    const allowed = Number(/POSTGRES_MAX_CONNECTIONS:-(\d+)/.exec(compose)?.[1]);
    const { maxReplicas } = only('HorizontalPodAutoscaler')[0].spec;
    const gateways = (maxReplicas + 1) * (Number(settings.POOL_SIZE) + 23);
    expect(gateways + (deployment('listener').spec.replicas + 1) * 9).toBeLessThan(allowed);
  });
});

describe('each pod', () => {
  test.each(workloads)('the pod of $component is restricted, and has no token of the cluster', ({ pod, container }) => {
    expect(pod).toMatchObject({
      serviceAccountName: only('ServiceAccount')[0].metadata.name,
      automountServiceAccountToken: false,
      securityContext: { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: 'RuntimeDefault' } },
    });
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
    expect(container.resources).toMatchObject({
      requests: { cpu: expect.any(String), memory: expect.any(String) },
      limits: { memory: expect.any(String) },
    });
  });

  test.each(['listener', 'gateway'] as const)(
    'the pod of %s opens the port that it serves, and is probed there',
    (component) => {
      const { container } = workloads.find((workload) => workload.component === component)!;
      const port = Number(settings[component === 'gateway' ? 'PORT' : 'LISTENER_PORT']);
      expect(container.ports).toEqual([{ name: 'http', containerPort: port }]);
      // that these paths are answered is seen in test/e2e/operators.test.ts
      expect(container.readinessProbe.httpGet).toEqual({ path: '/health/ready', port: 'http' });
      expect(container.livenessProbe.httpGet).toEqual({ path: '/health/live', port: 'http' });
      expect(container.startupProbe.httpGet).toEqual({ path: '/health/live', port: 'http' });
    },
  );

  test.each(['listener', 'gateway'] as const)('the pod of %s has time to stop before it is killed', (component) => {
    const { pod, container } = workloads.find((workload) => workload.component === component)!;
    const pause = Number(container.lifecycle?.preStop.exec.command[1] ?? 0);
    const stopMs = Number(settings.STOP_TIMEOUT_MS);
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(pause + stopMs / 1000 + 5);
    expect(pod.terminationGracePeriodSeconds).toBeLessThanOrEqual(pause + stopMs / 1000 + 15);
  });
});

describe('references between manifests', () => {
  test('selectors name pods, services and deployments that exist', () => {
    for (const { spec } of only('Deployment')) expect(matches(spec.selector, spec.template.metadata.labels)).toBe(true);
    const pods = workloads.map(({ template }) => template.metadata.labels);
    const chosen = (selector: Manifest) => pods.filter((labels) => matches(selector, labels)).length;
    for (const { spec } of only('PodDisruptionBudget')) expect(chosen(spec.selector)).toBe(1);
    expect(only('NetworkPolicy').map(({ spec }) => chosen(spec.podSelector))).toEqual([1, 1, 1]);
    const [service] = only('Service');
    expect(chosen({ matchLabels: service.spec.selector })).toBe(1);
    for (const { spec } of only('Ingress')) {
      for (const { backend } of spec.rules[0].http.paths)
        expect(backend.service).toEqual({ name: service.metadata.name, port: { name: service.spec.ports[0].name } });
    }
    const [{ spec }] = only('HorizontalPodAutoscaler') as [Manifest];
    expect(spec.scaleTargetRef.name).toBe(deployment('gateway').metadata.name);
    // the autoscaler owns their number
    expect(deployment('gateway').spec).not.toHaveProperty('replicas');
  });

  test('network policies admit Prometheus and the ingress controller at the served port, and nobody else', () => {
    for (const { component, container } of workloads) {
      const policy = only('NetworkPolicy').find(
        ({ metadata }) => metadata.labels['app.kubernetes.io/component'] === component,
      );
      expect(policy.spec.policyTypes).toEqual(['Ingress', 'Egress']);
      const ports = (policy.spec.ingress ?? []).flatMap(({ ports }: Manifest) => ports);
      expect(ports.map(({ port }: Manifest) => port)).toEqual(
        (container.ports ?? []).map(({ containerPort }: Manifest) => containerPort),
      );
      for (const { from } of policy.spec.ingress ?? []) {
        expect(from).toHaveLength(component === 'gateway' ? 2 : 1);
        for (const peer of from) expect(peer).toMatchObject({ namespaceSelector: {}, podSelector: {} });
      }
    }
  });

  test('the ingress serves neither operations nor health nor metrics', () => {
    const paths: Manifest[] = only('Ingress').flatMap(({ spec }) => spec.rules[0].http.paths);
    const served = (path: string) =>
      paths.some(({ path: shown, pathType }) =>
        pathType === 'Exact' ? path === shown : path === shown || path.startsWith(`${shown}/`),
      );
    for (const path of ['/ws', '/api/items', '/api/items/changes', '/plank.js', '/client/plank-client.js'])
      expect(served(path)).toBe(true);
    for (const path of ['/', '/metrics', '/ops', '/ops/nodes', '/console', '/console/', '/health', '/health/ready'])
      expect(served(path)).toBe(false);
  });

  test('the ingress keeps silent sockets for longer than the ping', () => {
    const pingMs = readConfig(gatewaySchema, { DATABASE_URL: 'postgres://given', ...settings }).PING_INTERVAL_MS;
    for (const { metadata } of only('Ingress')) {
      for (const name of ['read', 'send']) {
        const seconds = Number(metadata.annotations[`nginx.ingress.kubernetes.io/proxy-${name}-timeout`]);
        expect(seconds * 1000).toBeGreaterThanOrEqual(2 * pingMs);
      }
    }
  });

  test('the autoscaler uses a metric that gateways have and the adapter forwards', () => {
    const [pods] = only('HorizontalPodAutoscaler')[0].spec.metrics;
    const { name } = pods.pods.metric;
    const registry = new Registry();
    gatewayMetrics(registry);
    expect(registry.getSingleMetric(name)).toBeDefined();
    const [rule] = readYaml(join(folder, 'monitoring/adapter-rules.yaml')).rules.custom;
    expect(rule.name.as).toBe(name);
    expect(rule.seriesQuery.startsWith(`${name}{`)).toBe(true);
    expect(Number(pods.pods.target.averageValue)).toBeLessThanOrEqual(Number(settings.MAX_CONNECTIONS) / 2);
  });

  test('the scrape configuration finds the pods', () => {
    const { scrape_configs: jobs } = readYaml(join(folder, 'monitoring/scrape-configs.yaml'));
    const { labels } = readYaml(join(base, 'kustomization.yaml'));
    expect(labels[0]).toMatchObject({ pairs: { 'app.kubernetes.io/part-of': 'plank' }, includeTemplates: true });
    expect(jobs.map((job: Manifest) => job.job_name)).toEqual(['gateway', 'listener']);
    for (const { job_name, relabel_configs } of jobs) {
      const { container } = workloads.find(({ component }) => component === job_name)!;
      expect(relabel_configs[0].regex).toBe(`plank;${job_name};${container.ports[0].name}`);
    }
  });
});
