/** What a publish changes, for its report. */

export interface PublishChanges {
  /** Names: `tcp:10.0.0.100:80`. */
  readonly services: { readonly added: string[]; readonly changed: string[]; readonly removed: string[] };
  /** Names: `tcp:10.0.0.100:80 10.1.0.11:8080`. One that changed its method is both removed and added. */
  readonly realServers: { readonly added: string[]; readonly changed: string[]; readonly removed: string[] };
}
