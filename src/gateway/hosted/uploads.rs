//! Uploads: POST, PATCH, PUT, status, cancel, mount (distribution-spec 1.1, "Pushing blobs").

use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{Create, Leave as _, Permit};
use crate::gateway::body::Body;
use crate::gateway::intake::Intake;
use crate::gateway::respond::{self, Failure};
use crate::gateway::route::{UploadStart, UploadVerb};
use crate::oci::{Digest, RepositoryName, UploadId};
use crate::registry::{Mounted, RegistryError, Upload};

use super::Call;

impl Call<'_> {
    pub(super) async fn begin_upload(
        self,
        name: RepositoryName,
        start: UploadStart,
        intake: &mut Intake<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let permit = self.walk.permit(self.caller, &name)?;
        match start {
            UploadStart::Session(algorithm) => {
                let id = self.hosted.begin_upload(&permit, algorithm).await?;
                Ok(respond::upload(StatusCode::ACCEPTED, &name, id, 0))
            }
            UploadStart::Monolithic(digest) => self.monolithic(permit, digest, intake).await,
            UploadStart::Mount { digest, from } => {
                // Who may not pull there is answered as if it were not there: with an upload.
                let pull = from.and_then(|from| self.walk.permit(self.caller, &from).ok());
                match self.hosted.mount(&permit, pull, &digest).await? {
                    Mounted::Yes => Ok(respond::blob_created(&name, &digest)),
                    Mounted::Upload(id) => Ok(respond::upload(StatusCode::ACCEPTED, &name, id, 0)),
                }
            }
        }
    }

    pub(super) async fn upload(
        self,
        name: RepositoryName,
        id: UploadId,
        verb: UploadVerb,
        intake: &mut Intake<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let permit = self.walk.permit(self.caller, &name)?;
        match verb {
            UploadVerb::Status => {
                let offset = self.hosted.upload_offset(&permit, id).await?;
                Ok(respond::upload(StatusCode::NO_CONTENT, &name, id, offset))
            }
            UploadVerb::Cancel => {
                let upload = self.hosted.upload(permit, id).await?;
                upload.cancel().await?;
                Ok(respond::gone(StatusCode::NO_CONTENT))
            }
            UploadVerb::Patch => {
                let mut upload = self.hosted.upload(permit, id).await?;
                let appended = self.append(&mut upload, intake).await;
                // What arrived before a break stays, to go on from.
                let offset = upload.pause().await?;
                appended?;
                Ok(respond::upload(StatusCode::ACCEPTED, &name, id, offset))
            }
            UploadVerb::Put(digest) => {
                let mut upload = self.hosted.upload(permit, id).await?;
                // All of it, or nothing: clients send the same request again.
                upload.attempt();
                if let Err(failure) = self.append(&mut upload, intake).await {
                    upload.take_back().await?;
                    return Err(failure);
                }
                self.hosted.commit(upload, &digest).await?;
                Ok(respond::blob_created(&name, &digest))
            }
        }
    }

    async fn monolithic(
        self,
        permit: Permit<Create>,
        digest: Digest,
        intake: &mut Intake<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let name = permit.repository().clone();
        let mut upload = self.hosted.upload_once(permit, digest.algorithm()).await?;
        self.append(&mut upload, intake).await?;
        self.hosted.commit(upload, &digest).await?;
        Ok(respond::blob_created(&name, &digest))
    }

    /// Hands the request's body to the end of the upload, and never more of it than it said it would bring.
    async fn append(&self, upload: &mut Upload, intake: &mut Intake<Incoming>) -> Result<(), Failure> {
        let stated = self.walk.stated_range()?;
        if let Some(range) = stated.filter(|range| range.start() != upload.offset()) {
            let (expected, found) = (upload.offset(), range.start());
            return Err(RegistryError::UploadOffset { expected, found }.into());
        }
        let stated = stated.map(|range| range.length());
        while let Some(bytes) = intake.next().await? {
            let received = intake.received();
            if let Some(stated) = stated.filter(|stated| received > *stated) {
                return Err(RegistryError::UploadLength { stated, received }.into());
            }
            upload.write(bytes).await?;
        }
        let received = intake.received();
        match stated {
            Some(stated) if stated != received => Err(RegistryError::UploadLength { stated, received }.into()),
            _ => Ok(()),
        }
    }
}
