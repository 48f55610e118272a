"""OCI registries: capsules pushed to and pulled from any of them, in the Wasm OCI artifact layout.

    reference   which capsule, in which registry
    settings    how the operator lets a registry be asked, and with what credentials
    auth        who is shown those credentials
    client      the distribution protocol; every byte is checked against its digest
    layout      which manifests a capsule becomes
    push, pull  a capsule there, and back byte for byte

A registry is believed nothing.  What comes from one is verified as any capsule.
"""
