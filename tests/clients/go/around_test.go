package clients

import (
	"context"
	"testing"
	"time"

	"limosa/tests/clients/atlas"
)

// TestWhatSurroundsAMigration does what Terraform and the command line do before one.
func TestWhatSurroundsAMigration(t *testing.T) {
	ctx, org, client := context.Background(), given(t, "ORG_ID"), byDigest(t)
	yes := true
	made := must[atlas.Group](t)(client.CreateGroup(ctx, atlas.Group{
		Name: "made by the sdk", OrgID: org, RegionUsageRestrictions: "NONE", WithDefaultAlertsSettings: &yes,
		Tags: []atlas.Tag{{Key: "team", Value: "data"}},
	}))
	fresh := time.Since(made.Created) < patience && made.ClusterCount == 0 && len(made.ID) == 24 && len(made.Links) == 1
	if !fresh || len(made.Tags) != 1 || made.WithDefaultAlertsSettings == nil || !*made.WithDefaultAlertsSettings {
		t.Fatalf("%+v", made)
	}
	_, err := client.CreateGroup(ctx, atlas.Group{Name: "another", OrgID: org, RegionUsageRestrictions: "MOON"})
	refused(t, err, 400, "INVALID_ENUM_VALUE")
	if parameters := refused(t, client.Put(ctx, "groups/"+made.ID), 405, "METHOD_NOT_ALLOWED").Parameters; parameters[0] != "PUT" {
		t.Fatal(parameters)
	}

	desc := "changed"
	key := must[atlas.Key](t)(client.CreateGroupKey(ctx, made.ID, atlas.KeyChange{Desc: &desc, Roles: []string{"GROUP_OWNER"}}))
	belongs := false
	for _, role := range key.Roles {
		belongs = belongs || role.OrgID == org
	}
	if !belongs {
		t.Fatalf("%+v has no role in the organization", key.Roles)
	}
	changed := must[atlas.Key](t)(client.UpdateGroupKey(ctx, made.ID, key.ID, atlas.KeyChange{Roles: []string{"GROUP_READ_ONLY"}}))
	if changed.Desc != desc || changed.Roles[0].RoleName != "GROUP_READ_ONLY" {
		t.Fatalf("%+v", changed)
	}
	_, err = client.UpdateGroupKey(ctx, made.ID, "ugurosox", atlas.KeyChange{Desc: &desc})
	refused(t, err, 400, "PATH_PARAM_PARSE_ERROR")
}

// TestSecretsAreRotated moves a client from one secret to the next one.
func TestSecretsAreRotated(t *testing.T) {
	ctx, org, id := context.Background(), given(t, "ORG_ID"), given(t, "CLIENT_ID")
	owner := byDigest(t)
	secret := must[atlas.Secret](t)(owner.CreateSecret(ctx, org, id, 24))
	other := atlas.WithOAuth(given(t, "URL"), id, secret.Secret)
	found := must[atlas.Account](t)(other.GetAccount(ctx, org, id))
	if len(found.Secrets) != 2 {
		t.Fatalf("%+v", found)
	}
	if err := owner.DeleteSecret(ctx, org, id, secret.ID); err != nil {
		t.Fatal(err)
	}
	// The token that it was exchanged for is still held.
	_, err := other.GetAccount(ctx, org, id)
	refused(t, err, 401, "UNEXPECTED_ERROR")
}
