//! Tags, catalog, referrers.

use http::Response;

use crate::gateway::body::Body;
use crate::gateway::respond::{self, Failure};
use crate::gateway::route::Page;
use crate::oci::{Digest, RepositoryName};

use super::Call;

impl Call<'_> {
    pub(super) async fn tags(self, name: RepositoryName, page: Page) -> Result<Response<Body>, Failure> {
        let permit = self.walk.permit(self.caller, &name)?;
        let limit = self.walk.limit(&page);
        let tags = self.hosted.tags(&permit, page.last.as_deref(), limit).await?;
        Ok(respond::tags(&name, &tags, limit))
    }

    pub(super) async fn catalog(self, page: Page) -> Result<Response<Body>, Failure> {
        let permit = self.walk.permit_catalog(self.caller)?;
        let limit = self.walk.limit(&page);
        let below = self.namespace.and_then(|namespace| namespace.below.as_ref());
        let repositories = self.hosted.catalog(permit, below, page.last.as_deref(), limit).await?;
        let namespace = self.namespace.map(|namespace| &*namespace.text);
        Ok(respond::catalog(&repositories, "/v2/_catalog", namespace, limit))
    }

    pub(super) async fn referrers(
        self,
        name: RepositoryName,
        subject: Digest,
        artifact_type: Option<String>,
        last: Option<Digest>,
    ) -> Result<Response<Body>, Failure> {
        let permit = self.walk.permit(self.caller, &name)?;
        let limit = self.walk.settings.limits.page_entries;
        let artifact_type = artifact_type.as_deref();
        let page = self.hosted.referrers(&permit, &subject, artifact_type, last.as_ref(), limit).await?;
        Ok(respond::referrers(&name, &subject, artifact_type, &page))
    }
}
