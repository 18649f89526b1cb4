// Imports point one way: cli -> api client, daemon; daemon -> api, health, config, store, metrics -> dataplane -> model, libbpf-ts.
// A folder of src/ may import itself and what is named beside it here, and nothing else of ours.
const mayImport = {
  model: [],
  "libbpf-ts": [],
  "real-server": ["libbpf-ts"],
  dataplane: ["model", "libbpf-ts"],
  health: ["model"],
  config: ["model"],
  store: ["model"],
  metrics: ["dataplane", "model"],
  api: ["config", "dataplane", "model"],
  daemon: ["api", "health", "config", "store", "metrics", "dataplane", "model"],
  cli: ["api/client", "api/gen", "config", "daemon", "model", "real-server"],
};

/** A folder or a single file of that name under src/. */
const inSource = (names) => `^src/(${names.join("|")})(/|\\.ts$)`;

const direction = Object.entries(mayImport).map(([name, others]) => ({
  name: `imports-of-${name}`,
  severity: "error",
  comment: `src/${name} may import, of ours: ${others.length > 0 ? others.join(", ") : "nothing"}.`,
  from: { path: inSource([name]) },
  to: { path: "^(src|test)/", pathNot: inSource([name, ...others]) },
}));

export default {
  forbidden: [
    ...direction,
    {
      name: "every-folder-has-a-rule",
      severity: "error",
      comment: "A new folder in src/ says in this file what it may import.",
      from: { path: "^src/", pathNot: inSource(Object.keys(mayImport)) },
      to: {},
    },
    {
      name: "no-circle",
      severity: "error",
      comment: "Also by types alone: what refers to each other belongs in one file.",
      from: {},
      to: { circular: true },
    },
    {
      name: "resolvable",
      severity: "error",
      comment: "The file or package that is imported does not exist.",
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: "declared",
      severity: "error",
      comment: "A package that is imported stands in package.json; what src/ imports, among its dependencies.",
      from: { path: "^src/", pathNot: "^src/libbpf-ts/test/" },
      to: { dependencyTypes: ["npm-dev", "npm-no-pkg", "npm-unknown"] },
    },
  ],
  options: {
    // libbpf-ts is seen as others see it, built, and not followed from there.
    doNotFollow: { path: "node_modules|^src/libbpf-ts/dist/" },
    exclude: { path: "^(dist|build)/" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    combinedDependencies: false,
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "types", "node", "default"] },
  },
};
