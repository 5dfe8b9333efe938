/** What AUTH=jwt adds to a gateway: who its clients are, and for how long. */
import { Expiries } from './expiries.ts';
import { Identities } from './identity.ts';

export class Access {
  readonly identities: Identities;
  readonly expiries = new Expiries();

  /** Throws where the key of the settings cannot be used. */
  constructor(...given: ConstructorParameters<typeof Identities>) {
    this.identities = new Identities(...given);
  }
}
