// The policies of a run, each three times: as Plank gets it, as SQL for the final comparison, and as code that judges one row. The three
// are written by hand and share nothing with Plank's parser or compiler.

export type Row = Record<string, unknown>;

export interface Claims {
  sub?: string;
  role?: string;
  projects?: number[];
}

/** All rows of the tables that policies read, after some transaction. */
export interface State {
  memberships: ReadonlyMap<string, Row>;
  team_members: ReadonlyMap<string, Row>;
  team_projects: ReadonlyMap<string, Row>;
}

interface Policy {
  read: object;
  columns: readonly string[];
  /** a condition over `docs d`; $1 is the user, $2 his projects */
  sql: string;
  admits: (row: Row, state: State, claims: Claims) => boolean;
}

const all = ['id', 'project_id', 'owner', 'status', 'version', 'body', 'hidden'];
const member = { user_id: { $claim: 'sub' }, level: { gte: 1 } };

const isMember = ({ memberships }: State, user: unknown, project: unknown) =>
  [...memberships.values()].some((m) => m.user_id === user && m.project_id === project && Number(m.level) >= 1);
const isInTeam = ({ team_members, team_projects }: State, user: unknown, project: unknown) =>
  [...team_projects.values()].some(
    (p) =>
      p.project_id === project && [...team_members.values()].some((m) => m.user_id === user && m.team_id === p.team_id),
  );
const hasProject = ({ memberships }: State, user: unknown) =>
  [...memberships.values()].some((m) => m.user_id === user && Number(m.level) >= 1);

const memberSql = 'd.project_id in (select project_id from memberships where user_id = $1 and level >= 1)';

export const policies = {
  owner: {
    read: { owner: { $claim: 'sub' } },
    columns: all,
    sql: 'd.owner = $1',
    admits: (row, _state, { sub }) => row.owner === sub,
  },
  member: {
    read: { project_id: { in: { $from: 'memberships', select: 'project_id', where: member } } },
    columns: ['id', 'project_id', 'owner', 'status', 'version', 'body'],
    sql: memberSql,
    admits: (row, state, { sub }) => row.project_id !== null && isMember(state, sub, row.project_id),
  },
  team: {
    read: {
      project_id: {
        in: {
          $from: 'team_projects',
          select: 'project_id',
          where: {
            team_id: { in: { $from: 'team_members', select: 'team_id', where: { user_id: { $claim: 'sub' } } } },
          },
        },
      },
    },
    columns: ['id', 'project_id', 'status', 'version'],
    sql: `d.project_id in (select project_id from team_projects
            where team_id in (select team_id from team_members where user_id = $1))`,
    admits: (row, state, { sub }) => row.project_id !== null && isInTeam(state, sub, row.project_id),
  },
  // a row without a project is neither in nor not in a set that has values
  outsider: {
    read: {
      or: [
        { owner: { $claim: 'sub' } },
        {
          status: 'public',
          not: { project_id: { in: { $from: 'memberships', select: 'project_id', where: member } } },
        },
      ],
    },
    columns: ['id', 'owner', 'status', 'version'],
    sql: `d.owner = $1 or (d.status = 'public' and not (${memberSql}))`,
    admits: (row, state, { sub }) =>
      row.owner === sub ||
      (row.status === 'public' &&
        (row.project_id === null ? !hasProject(state, sub) : !isMember(state, sub, row.project_id))),
  },
  tenant: {
    read: { project_id: { in: { $claim: 'projects' } } },
    columns: ['id', 'project_id', 'status', 'version', 'body'],
    sql: 'd.project_id = any ($2)',
    admits: (row, _state, { projects }) => projects!.includes(row.project_id as number),
  },
  anonymous: {
    read: { status: 'public' },
    columns: ['id', 'status', 'version'],
    sql: "d.status = 'public'",
    admits: (row) => row.status === 'public',
  },
} satisfies Record<string, Policy> as Record<string, Policy>;

/** The policies of the role `editor`, which the run changes in turn. Null: forbidden, so the role is `anonymous` to the table. */
export const editorPolicies: readonly (Policy | null)[] = [
  policies.owner!,
  {
    read: { status: { in: ['open', 'public'] } },
    columns: ['id', 'status', 'version', 'body'],
    sql: "d.status in ('open', 'public')",
    admits: (row) => row.status === 'open' || row.status === 'public',
  },
  null,
  {
    read: { project_id: { is: null } },
    columns: ['id', 'version', 'hidden'],
    sql: 'd.project_id is null',
    admits: (row) => row.project_id === null,
  },
];

export const allow = (role: string, { read, columns }: Policy): string =>
  `select plank.allow('docs', '${role}', read => '${JSON.stringify(read)}', read_columns => '{${columns.join(',')}}')`;

export const schema = `
  create table docs (id int primary key, project_id int, owner text, status text not null, version bigint not null,
                     body text, hidden text);
  create table memberships (user_id text, project_id int, level int, primary key (user_id, project_id));
  create table team_members (user_id text, team_id int, primary key (user_id, team_id));
  create table team_projects (team_id int, project_id int, primary key (team_id, project_id));
  create sequence version;
  select plank.attach('docs'); select plank.attach('memberships');
  select plank.attach('team_members'); select plank.attach('team_projects');
  ${Object.entries(policies)
    .map(([role, policy]) => `${allow(role, policy)};`)
    .join('\n')}
  ${allow('editor', editorPolicies[0]!)};
`;
