// Signs, lists and verifies as the notation CLI does, with notation-go: notation COMMAND REFERENCE [ARGUMENT…]
//
//	notation sign REFERENCE KEY CERTIFICATE MEDIATYPE
//	notation list REFERENCE
//	notation verify REFERENCE   (trusts what is in $NOTATION_CONFIG/truststore/x509/ca/e2e)
//	notation delete REFERENCE   (all its signatures)
//
// Whom it is comes from $NOTATION_USERNAME and $NOTATION_PASSWORD.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/dir"
	"github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/signer"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, command, reference string, arguments []string) error {
	dir.UserConfigDir = os.Getenv("NOTATION_CONFIG")
	there, err := remote.NewRepository(reference)
	if err != nil {
		return err
	}
	there.Client = &auth.Client{
		Cache: auth.NewCache(),
		Credential: auth.StaticCredential(there.Reference.Registry, auth.Credential{
			Username: os.Getenv("NOTATION_USERNAME"), Password: os.Getenv("NOTATION_PASSWORD"),
		}),
	}
	// Its absence would be hidden by the list in a tag.
	if err := there.SetReferrersCapability(true); err != nil {
		return err
	}
	signatures := registry.NewRepository(there)
	switch command {
	case "sign":
		return sign(ctx, signatures, reference, arguments[0], arguments[1], arguments[2])
	case "verify":
		return verify(ctx, signatures, reference)
	case "list", "delete":
		subject, err := signatures.Resolve(ctx, there.Reference.Reference)
		if err != nil {
			return err
		}
		return signatures.ListSignatures(ctx, subject, func(found []ocispec.Descriptor) error {
			for _, one := range found {
				fmt.Println(one.Digest)
				if command == "delete" {
					if err := there.Delete(ctx, one); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return fmt.Errorf("no such command: %s", command)
}

func sign(ctx context.Context, signatures registry.Repository, reference, key, certificate, form string) error {
	with, err := signer.NewFromFiles(key, certificate)
	if err != nil {
		return err
	}
	mediaType := map[string]string{"cose": cose.MediaTypeEnvelope, "jws": jws.MediaTypeEnvelope}[form]
	signed, err := notation.Sign(ctx, with, signatures, notation.SignOptions{
		SignerSignOptions: notation.SignerSignOptions{SignatureMediaType: mediaType},
		ArtifactReference: reference,
	})
	if err == nil {
		fmt.Println(signed.Digest)
	}
	return err
}

func verify(ctx context.Context, signatures registry.Repository, reference string) error {
	policy := trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name:                  "e2e",
		RegistryScopes:        []string{"*"},
		SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: trustpolicy.LevelStrict.Name},
		TrustStores:           []string{"ca:e2e"},
		TrustedIdentities:     []string{"*"},
	}}}
	by, err := verifier.New(&policy, truststore.NewX509TrustStore(dir.ConfigFS()), nil)
	if err != nil {
		return err
	}
	verified, _, err := notation.Verify(ctx, by, signatures, notation.VerifyOptions{ArtifactReference: reference, MaxSignatureAttempts: 50})
	if err == nil {
		fmt.Println(verified.Digest)
	}
	return err
}
